"""Which layouts of the autoencoder there are: a new one is a file of this folder and a line here."""

from __future__ import annotations

__all__ = ["LAYOUTS"]

#: Name, and as "module:function" for :func:`pkgutil.resolve_name` what builds an
#: :class:`~scldm.vae.base.Encoder` and a :class:`~scldm.vae.base.Decoder`.
LAYOUTS: dict[str, str] = {
    "wide": "scldm.vae.wide:build",
    "published": "scldm.vae.published:build",
}

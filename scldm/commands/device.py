"""The ``--device`` option."""

from __future__ import annotations

import torch

from scldm.errors import UserError

__all__ = ["choose_device"]


def choose_device(name: str) -> str | None:
    """Check a device's name; ``auto`` becomes None, which takes a GPU if there is one.

    Raises
    ------
    UserError
        If this machine does not have the device.
    """
    if name == "auto":
        return None
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"the device '{name}' is not available on this machine; use --device cpu.")
    return name

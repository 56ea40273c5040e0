"""The past of the model directory: one function a step takes the content of a format to that of the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["FORMAT_VERSION", "OLDEST_FORMAT", "Content", "migrated"]

FORMAT_VERSION = 6


@dataclass(frozen=True, eq=False)
class Content:
    """The content of a model directory, as it was read.

    Attributes
    ----------
    config
        ``config.json`` without its version: the configuration (``config``) and how the model was trained
        (``training``).
    schema
        ``schema.json``.
    vae, prior
        Tensors by name.
    """

    config: dict[str, Any]
    schema: dict[str, Any]
    vae: dict[str, Tensor]
    prior: dict[str, Tensor]


def _from_4(content: Content) -> Content:
    """Format 5 says how generators are seeded; models of format 4 go on giving the cells that they gave."""
    content.config["config"]["seeding"] = "32-bit"
    return content


def _from_5(content: Content) -> Content:
    """Format 6 hides all attributes of some training cells together, and has checksums, which older models lack."""
    for section in ("vae", "prior"):
        if isinstance(content.config["config"].get(section), dict):
            content.config["config"][section]["joint_attribute_dropout"] = 0.0
    return content


MIGRATIONS: dict[int, Callable[[Content], Content]] = {4: _from_4, 5: _from_5}
"""By the format that they start from."""

OLDEST_FORMAT = min(MIGRATIONS)


def migrated(content: Content, version: int) -> Content:
    """Take the content of a format from `OLDEST_FORMAT` on to that of `FORMAT_VERSION`, step by step."""
    for step in range(version, FORMAT_VERSION):
        content = MIGRATIONS[step](content)
    return content

"""New cells: what is asked for, how it is generated, and where it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scldm.lazy import lazy_names

if TYPE_CHECKING:
    from scldm.generation.request import GenerationRequest
    from scldm.generation.sampler import generate
    from scldm.generation.writer import write_cells

__all__ = ["GenerationRequest", "generate", "write_cells"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GenerationRequest": "scldm.generation.request",
        "generate": "scldm.generation.sampler",
        "write_cells": "scldm.generation.writer",
    },
)

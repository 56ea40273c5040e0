"""Figures of an evaluation: what a biologist would look at first."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scldm.evaluation.plots.overview import draw_overview as draw_overview

__all__ = ["draw_overview"]


def __getattr__(name: str) -> Any:
    """Load what draws only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.overview"), name)

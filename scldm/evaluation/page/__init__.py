"""The evaluation as one self-contained web page."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scldm.evaluation.page.write import write_page as write_page

__all__ = ["write_page"]


def __getattr__(name: str) -> Any:
    """Load templates and figures only when a page is asked for."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.write"), name)

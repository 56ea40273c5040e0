"""Numbers as they are written on the page."""

from __future__ import annotations

import math

__all__ = ["NOTHING", "number"]

NOTHING = "–"  # noqa: RUF001 (a dash, not a hyphen)


def number(value: float | None, like: float | None = None) -> str:
    """Write a number with three significant digits, or with as many decimals as `like`, whose interval it may end.

    None, and what is not finite, is a dash.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    scale = abs(value if like is None or not math.isfinite(like) else like)
    if scale == 0:
        return "0" if value == 0 else number(value)
    decimals = min(max(2 - math.floor(math.log10(scale) + 1e-9), 0), 5)
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "−")  # noqa: RUF001 (a minus sign, not a hyphen)

"""Where a generator stands: at the ceiling, between it and the baselines, or behind one of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from scldm.evaluation.registry import Direction
from scldm.evaluation.values import FigureValues, Value

__all__ = ["LATENT_SPACE", "Standing", "at_ceiling", "in_own_space", "standing"]

Standing = Literal["ceiling", "between", "behind"]

LATENT_SPACE = "latent"
"""The latent space of a model, in which its own cells are at an advantage or a disadvantage."""


def in_own_space(row: FigureValues) -> bool:
    """Whether a figure is a distance in the latent space of a judged model: no measure of anyone's standing."""
    return row.group == "distances" and row.name.endswith(f"[{LATENT_SPACE}]")


def at_ceiling(row: FigureValues, system: str) -> bool | None:
    """Whether a system is as good as the ceiling, by the rule of `standing`; None when either has no value."""
    ceiling, own = row.values.get("ceiling"), row.values.get(system)
    if ceiling is None or own is None or not (math.isfinite(ceiling.value) and math.isfinite(own.value)):
        return None
    return _loss(row.direction, own.value, ceiling.value) <= _margin(own, ceiling)


def standing(row: FigureValues, system: str, baselines: Iterable[str]) -> Standing | None:
    """Compare one value of a system with the ceiling and with the best baseline.

    Parameters
    ----------
    row
        The figure, with the value of ``ceiling``.
    system
        Whose value to judge.
    baselines
        Names of the baselines; those without a value are left out.

    Returns
    -------
    ``ceiling`` when the system is as good as the ceiling, better, or worse by no more than both 95 % intervals
    together explain (the half-widths on the sides that face each other, added as independent errors are); ``behind``
    when it is farther from the ceiling than the best baseline; ``between`` when it is nearer. None when it or the
    ceiling has no value, or when it misses the ceiling and there is no baseline to compare with.
    """
    is_there, ceiling, own = at_ceiling(row, system), row.values.get("ceiling"), row.values.get(system)
    if is_there is None or ceiling is None or own is None:
        return None
    if is_there:
        return "ceiling"
    loss = _loss(row.direction, own.value, ceiling.value)
    compared = [value.value for value in (row.values.get(name) for name in baselines) if value is not None]
    losses = [_loss(row.direction, value, ceiling.value) for value in compared if math.isfinite(value)]
    if not losses:
        return None
    return "behind" if loss > min(losses) else "between"


def _loss(direction: Direction, value: float, ceiling: float) -> float:
    """How much worse than the ceiling a value is; negative when it is better."""
    if direction == "closest to ceiling":
        return abs(value - ceiling)
    return value - ceiling if direction == "lower" else ceiling - value


def _margin(own: Value, ceiling: Value) -> float:
    """Add the half-widths of the intervals towards each other in quadrature: what chance alone explains."""
    if own.value >= ceiling.value:
        ends = own.value - _or(own.low, own.value), _or(ceiling.high, ceiling.value) - ceiling.value
    else:
        ends = _or(own.high, own.value) - own.value, ceiling.value - _or(ceiling.low, ceiling.value)
    # values that are equal but for rounding are equal
    return math.hypot(*(max(end, 0.0) for end in ends)) + 1e-12 * abs(ceiling.value)


def _or(end: float | None, value: float) -> float:
    """Give the end of an interval, or the value where there is none."""
    return value if end is None or not math.isfinite(end) else end

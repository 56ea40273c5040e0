"""How good one value is: beside the ceiling, beside the baselines, and beyond chance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from scldm.evaluation.records import LATENT_SPACE, Direction, Record, Row, Value
from scldm.evaluation.systems import CEILING

__all__ = ["Rank", "at_ceiling", "beyond_chance", "in_own_space", "is_behind", "loss", "rank"]

Rank = Literal["ceiling", "between", "behind"]

# Among many metrics and labels one is always off by chance: a difference has to be this many times what 95 % intervals
# explain, which is about three standard errors.
CHANCE_OF_MANY = 1.5


def loss(direction: Direction, value: float, ceiling: float) -> float:
    """How much worse than the ceiling a value is; negative when it is better."""
    if direction == "closest to ceiling":
        return abs(value - ceiling)
    return value - ceiling if direction == "lower" else ceiling - value


def in_own_space(row: Row) -> bool:
    """Whether a metric is a distance in the latent space of a judged model, which says nothing of anyone's rank."""
    return row.info.group == "distances" and row.space == LATENT_SPACE


def at_ceiling(row: Row, system: str) -> bool | None:
    """Whether a system is as good as the ceiling, by the rule of `rank`; None when either has no value."""
    own, ceiling = _finite(row, system), _finite(row, CEILING)
    if own is None or ceiling is None:
        return None
    # values that are equal but for rounding are equal
    explained = _margin(own, ceiling) + 1e-12 * abs(ceiling.value)
    return loss(row.info.direction, own.value, ceiling.value) <= explained


def rank(row: Row, system: str, baselines: Iterable[str]) -> Rank | None:
    """Compare one value of a system with the ceiling and with the best baseline that has a value.

    Returns
    -------
    ``ceiling`` when the system is as good as the ceiling, better, or worse by no more than both 95 % intervals
    together explain (the half-widths on the sides that face each other, added as independent errors are); ``behind``
    when it is farther from the ceiling than the best baseline; ``between`` when it is nearer. None when it or the
    ceiling has no value, or when it misses the ceiling and there is no baseline to compare with.
    """
    is_there, own, ceiling = at_ceiling(row, system), _finite(row, system), _finite(row, CEILING)
    if is_there or own is None or ceiling is None:
        return "ceiling" if is_there else None
    others = [other for name in baselines if (other := _finite(row, name)) is not None]
    losses = [loss(row.info.direction, one.value, ceiling.value) for one in (own, *others)]
    return None if not others else "behind" if losses[0] > min(losses[1:]) else "between"


def beyond_chance(one: Value | Record, other: Value | Record) -> bool:
    """Tell whether two values differ by clearly more than both intervals explain, taken as independent errors."""
    return abs(one.value - other.value) > CHANCE_OF_MANY * _margin(one, other)


def is_behind(row: Row, system: str, baseline: str) -> bool:
    """Tell whether a baseline is nearer to the ceiling than a system that misses it, by more than chance explains."""
    own, other, ceiling = (row.values[name] for name in (system, baseline, CEILING))
    losses = [loss(row.info.direction, one.value, ceiling.value) for one in (own, other)]
    return losses[0] > max(losses[1], 0.0) and beyond_chance(own, ceiling) and beyond_chance(own, other)


def _finite(row: Row, system: str) -> Record | None:
    """Look a value up; None if it is not there or is not a finite number."""
    found = row.values.get(system)
    return found if found is not None and math.isfinite(found.value) else None


def _margin(one: Value | Record, other: Value | Record) -> float:
    """Add the half-widths of the intervals towards each other in quadrature: what chance alone explains."""
    low, high = (one, other) if one.value <= other.value else (other, one)
    up = 0.0 if low.high is None else max(low.high - low.value, 0.0)
    down = 0.0 if high.low is None else max(high.value - high.low, 0.0)
    return math.hypot(up, down)

"""How good one value is: beside what real cells score, and beside the baselines. One rule for all that is shown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np

from scldm.evaluation.null import LEVEL
from scldm.evaluation.records import LATENT_SPACE, Direction, MetricInfo, Record, Row
from scldm.evaluation.systems import CEILING

__all__ = [
    "Rank",
    "at_ceiling",
    "differ",
    "half_sampling_margin",
    "in_own_latents",
    "in_own_space",
    "is_behind",
    "is_worse",
    "loss",
    "rank",
]

Rank = Literal["ceiling", "between", "behind"]

# With fewer halvings their spread is hardly known.
MIN_HALVINGS = 4


def loss(direction: Direction, value: float, ceiling: float) -> float:
    """How much worse than the ceiling a value is; negative when it is better."""
    if direction == "closest to ceiling":
        return abs(value - ceiling)
    return value - ceiling if direction == "lower" else ceiling - value


def in_own_latents(info: MetricInfo, space: str | None) -> bool:
    """Whether a metric is a distance in the latent space of a judged model, which says nothing of anyone's rank."""
    return info.group == "distances" and space == LATENT_SPACE


def in_own_space(row: Row) -> bool:
    """As `in_own_latents`, of a row."""
    return in_own_latents(row.info, row.space)


def is_worse(real_range: tuple[float | None, float | None], value: float) -> bool:
    """Tell whether a value is beyond what real cells score; equal but for rounding is not beyond."""
    low, high = real_range
    rounding = 1e-12 * abs(value)
    return (low is not None and value < low - rounding) or (high is not None and value > high + rounding)


def at_ceiling(row: Row, system: str) -> bool | None:
    """Whether a system scores as real cells do in 95 % of evaluations, or better; None where that is not known.

    This is the rule of the table, of colours and of findings. The ceiling itself is always there.
    """
    own = _finite(row, system)
    if own is None or _finite(row, CEILING) is None or own.real_range is None:
        return None
    if system == CEILING:
        return True
    return not is_worse(own.real_range, own.value)


def rank(row: Row, system: str, baselines: Iterable[str]) -> Rank | None:
    """Compare one value of a system with real cells and with the best baseline that has a value.

    Returns
    -------
    ``ceiling`` when the system is `at_ceiling`; ``behind`` when it is farther from the ceiling than the best baseline;
    ``between`` when it is nearer. None when it is not known how real cells score, or when the system is worse and there
    is no baseline to compare with.
    """
    is_there, own, ceiling = at_ceiling(row, system), _finite(row, system), _finite(row, CEILING)
    if is_there or is_there is None or own is None or ceiling is None:
        return "ceiling" if is_there else None
    others = [other for name in baselines if (other := _finite(row, name)) is not None]
    losses = [loss(row.info.direction, one.value, ceiling.value) for one in (own, *others)]
    return None if not others else "behind" if losses[0] > min(losses[1:]) else "between"


def is_behind(row: Row, system: str, baseline: str) -> bool:
    """Tell whether a baseline is nearer to the ceiling than a system worse than real cells, by more than by chance."""
    own, other, ceiling = (row.values[name] for name in (system, baseline, CEILING))
    losses = [loss(row.info.direction, one.value, ceiling.value) for one in (own, other)]
    return at_ceiling(row, system) is False and losses[0] > max(losses[1], 0.0) and differ(own, other)


def differ(one: Record, other: Record) -> bool:
    """Tell whether two systems differ in more than which cells happened to be drawn (95 %).

    Both were compared with the same reference in every halving, so that what matters is the spread of their difference.
    """
    paired = np.subtract(one.halvings, other.halvings) if len(one.halvings) == len(other.halvings) else np.zeros(0)
    margin = half_sampling_margin(paired)
    return margin is not None and abs(one.value - other.value) > margin


def half_sampling_margin(halvings: np.ndarray) -> float | None:
    """Compute half the width of an interval (95 %) for the mean over halvings; None with fewer than four of them.

    A halving has half of the cells. Random halves, drawn without replacement, differ as much from each other as samples
    of all cells would: for a mean, ``(s^2 / n) (1 - 1/2)`` for n of 2 n cells is ``s^2 / (2 n)`` (McCarthy, 1969). So
    the spread of the halvings is that of their mean, and is not divided by their number.
    """
    from scipy.stats import t

    n = len(halvings)
    if n < MIN_HALVINGS:
        return None
    return float(t.ppf(1 - LEVEL / 2, n - 1) * np.std(halvings, ddof=1) * math.sqrt(1 + 1 / n))


def _finite(row: Row, system: str) -> Record | None:
    """Look a value up; None if it is not there or is not a finite number."""
    found = row.values.get(system)
    return found if found is not None and math.isfinite(found.value) else None

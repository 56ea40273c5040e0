"""The null distribution: how far from the ceiling a system scores if its cells are real."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scldm.evaluation.records import Direction

__all__ = ["LEVEL", "MIN_PERMUTATIONS", "Null", "n_worse_of_real"]

#: How often a metric calls real cells worse than real ones.
LEVEL = 0.05
#: With fewer there are none to say that of the least likely 2.5 % on one side.
MIN_PERMUTATIONS = 39


@dataclass(frozen=True, eq=False)
class Null:
    """Differences (system - ceiling) of one metric that were found under the hypothesis that the system is real.

    The observed difference and the permuted ones are exchangeable under the hypothesis, so that the share of all of
    them that are as bad as the observed one is below 5 % in at most 5 % of evaluations of real cells: exactly, whatever
    the metric and however few cells there are (Phipson and Smyth, 2010).

    Attributes
    ----------
    differences
        The permuted ones; at least 39.
    direction
        Of a metric that should be closest to the ceiling both ends are bad.
    """

    differences: Float[np.ndarray, " permutations"]
    direction: Direction

    @property
    def range(self) -> tuple[float | None, float | None]:
        """Least and largest difference that is not called worse; None on a side where none is.

        A difference is called worse only if it is *beyond* it.
        """
        ordered = np.sort(self.differences)
        tail = LEVEL / 2 if self.direction == "closest to ceiling" else LEVEL
        k = math.floor(tail * (len(ordered) + 1) + 1e-9)
        low, high = float(ordered[k - 1]), float(ordered[-k])
        return (None if self.direction == "lower" else low), (None if self.direction == "higher" else high)

    def p_value(self, difference: float) -> float:
        """Compute how often real cells score as badly or worse: 5 % or less is worse than real.

        Within what was permuted it is the share of differences that are as bad. Beyond all of them, where the share
        can say no more than that it is small, it is the tail of Student's t distribution round their mean.
        """
        if self.direction == "closest to ceiling":
            ends = (self._tail(sign * self.differences, sign * difference) for sign in (1.0, -1.0))
            return min(1.0, 2 * min(ends))
        sign = 1.0 if self.direction == "lower" else -1.0
        return self._tail(sign * self.differences, sign * difference)

    @staticmethod
    def _tail(differences: Float[np.ndarray, " permutations"], difference: float) -> float:
        from scipy.stats import t

        n = len(differences)
        if (n_as_bad := int((differences >= difference).sum())) or n < 2:
            return (n_as_bad + 1) / (n + 1)
        spread = differences.std(ddof=1) * math.sqrt(1 + 1 / n)
        beyond = difference - differences.mean()
        extrapolated = float(t.sf(beyond / spread, n - 1)) if spread > 1e-12 * abs(beyond) else 0.0
        return min(extrapolated, 1 / (n + 1))


def n_worse_of_real(nulls: list[Null]) -> int:
    """Count how many of several metrics, which depend on each other, call real cells worse: more do in 5 % of cases.

    The nulls were found in the same permutations (of some, in the first of them); each permutation in turn is what is
    judged by all others.
    """
    if not nulls:
        return 0
    n = min(len(null.differences) for null in nulls)
    worse = np.zeros(n, dtype=np.int64)
    for null in nulls:
        some = null.differences[:n]
        k = math.floor((LEVEL / 2 if null.direction == "closest to ceiling" else LEVEL) * n + 1e-9)
        ordered = np.sort(some)
        if k:
            worse += (null.direction != "higher") & (some >= ordered[-k]) & (ordered[-k] > ordered[0])
            worse += (null.direction != "lower") & (some <= ordered[k - 1]) & (ordered[k - 1] < ordered[-1])
    return int(np.sort(worse)[min(math.ceil(0.95 * n), n) - 1])

"""How sure a number is: bootstrap replicates from cell weights, the same resamples for every metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scldm.evaluation.records import Value

__all__ = ["N_RESAMPLES", "Estimate", "draw_weights", "median_ratio", "weighted_mean", "weighted_quantiles"]

# Shapes that metrics share: points of two samples, their bootstrap weights, and a number for the cells as they are (row
# 0) and for every resample.
X = Float[np.ndarray, "n features"]
Y = Float[np.ndarray, "m features"]
WeightsX = Float[np.ndarray, "resamples n"]
WeightsY = Float[np.ndarray, "resamples m"]
Rows = Float[np.ndarray, " rows"]

N_RESAMPLES = 200
CONFIDENCE = 0.95

Weights = Float[np.ndarray, "resamples cells"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """The value of a metric, and what it would have been in every bootstrap resample of the cells.

    A resample weighs the cells anew, but what was found from all of them stays: nearest neighbours, and trees or
    classifiers that were trained. The intervals of such metrics leave that part out and are somewhat narrow.

    Attributes
    ----------
    value
        From the cells as they are.
    replicates
        From the resampled cells; None where a metric has no interval.
    """

    value: float
    replicates: Float[np.ndarray, " resamples"] | None = None

    @classmethod
    def of(cls, rows: Float[np.ndarray, " rows"] | None) -> Estimate | None:
        """Take the first number as the value and the others as its replicates; None gives None."""
        return None if rows is None else cls(float(rows[0]), np.asarray(rows[1:], dtype=np.float64))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bootstrap interval (95 %) round the value.

        Distances between samples are biased upwards, and those between resamples twice as much, so it is the
        *spread* of the replicates round their own mean that is laid round the value.
        """
        if self.replicates is None:
            return None
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(self.replicates - self.replicates.mean(), [tail, 1 - tail])
        return self.value + float(low), self.value + float(high)

    @property
    def reported(self) -> Value | None:
        """What is kept of it in a report: finite numbers only; None if the value is not one."""
        if not math.isfinite(self.value):
            return None
        low, high = self.interval or (math.nan, math.nan)
        if not (math.isfinite(low) and math.isfinite(high)):
            return Value(float(self.value))
        return Value(float(self.value), low, high)

    @staticmethod
    def mean(estimates: Sequence[Estimate]) -> Estimate:
        """Average one metric over several splits of the same cells, resample by resample."""
        value = float(np.mean([e.value for e in estimates]))
        replicates = [e.replicates for e in estimates if e.replicates is not None]
        return Estimate(value, np.mean(replicates, axis=0) if len(replicates) == len(estimates) else None)


def draw_weights(n_cells: int, rng: np.random.Generator, n_resamples: int = N_RESAMPLES) -> Weights:
    """Draw how often every cell is in every resample: independent Poisson counts of mean 1.

    Independent weights, unlike those of drawing a fixed number of cells, stay a bootstrap for any part of the cells.
    """
    return rng.poisson(1.0, size=(n_resamples, n_cells)).astype(np.float32)


def weighted_mean(values: Float[np.ndarray, " cells"], weights: Weights) -> Estimate:
    """Estimate the mean over cells of a quantity that every cell has."""
    total = np.maximum(weights.sum(axis=1), 1.0)
    return Estimate(float(np.mean(values)), (weights @ np.asarray(values, dtype=np.float64)) / total)


def weighted_quantiles(
    values: Float[np.ndarray, " cells"], weights: Weights, level: float = 0.5
) -> Float[np.ndarray, " resamples"]:
    """Compute a quantile, by default the median, of the cells of every resample.

    It is the smallest value with at least this share of the weight at or below it; halfway to the next when the share
    is met exactly, as in an ordinary median.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    cumulative = np.cumsum(weights[:, order].astype(np.float64), axis=1)
    wanted = level * cumulative[:, -1:]
    last = len(values) - 1
    low = np.minimum((cumulative < wanted).sum(axis=1), last)
    high = np.minimum((cumulative <= wanted).sum(axis=1), last)
    return 0.5 * (ordered[low] + ordered[high])


def median_ratio(
    system: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, " m"],
    system_weights: WeightsX,
    reference_weights: WeightsY,
) -> Estimate | None:
    """Divide the median of the system's cells by that of the reference; None when the latter is zero."""
    below = np.median(reference)
    if not below > 0:
        return None
    medians = weighted_quantiles(reference, reference_weights)
    ratios = weighted_quantiles(system, system_weights) / np.where(medians > 0, medians, below)
    return Estimate(float(np.median(system) / below), ratios)

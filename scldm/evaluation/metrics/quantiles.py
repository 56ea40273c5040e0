"""Quantiles of the cells of every bootstrap resample."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from scldm.evaluation.bootstrap import Estimate
from scldm.evaluation.metrics.arrays import WeightsX, WeightsY

__all__ = ["median_ratio", "weighted_quantiles"]


def weighted_quantiles(
    values: Float[np.ndarray, " n"], weights: WeightsX, level: float = 0.5
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

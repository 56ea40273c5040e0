"""Sequencing depth of two sets of cells: medians and distributions of library sizes, also under cell weights."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["kolmogorov_smirnov", "median_ratio", "weighted_quantiles"]


def weighted_quantiles(
    values: Float[np.ndarray, " cells"], weights: Float[np.ndarray, "resamples cells"], level: float = 0.5
) -> Float[np.ndarray, " resamples"]:
    """Compute a quantile (by default the median) of the cells of every resample.

    Parameters
    ----------
    values
        One per cell.
    weights
        How often every cell is in every resample.
    level
        Between 0 and 1.

    Returns
    -------
    The smallest value with at least this share of the weight at or below it; halfway to the next when the share is met
    exactly, as in an ordinary median.
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
    system: Float[np.ndarray, " cells"],
    reference: Float[np.ndarray, " reference_cells"],
    system_weights: Float[np.ndarray, "resamples cells"],
    reference_weights: Float[np.ndarray, "resamples reference_cells"],
) -> tuple[float, Float[np.ndarray, " resamples"]] | None:
    """Divide the median of the system's cells by that of the reference, also in every resample.

    Returns
    -------
    The ratio and its replicates; None when the median of the reference is zero.
    """
    below = np.median(reference)
    if not below > 0:
        return None
    medians = weighted_quantiles(reference, reference_weights)
    ratios = weighted_quantiles(system, system_weights) / np.where(medians > 0, medians, below)
    return float(np.median(system) / below), ratios


def kolmogorov_smirnov(
    system: Float[np.ndarray, " cells"],
    reference: Float[np.ndarray, " reference_cells"],
    system_weights: Float[np.ndarray, "rows cells"],
    reference_weights: Float[np.ndarray, "rows reference_cells"],
) -> Float[np.ndarray, " rows"]:
    """Compute the largest difference between two cumulative distributions, for every row of weights.

    0 when they are equal, 1 when they do not overlap.
    """
    values = np.concatenate([system, reference])
    order = np.argsort(values, kind="stable")
    shares = [
        w / np.maximum(w.sum(axis=1, keepdims=True, dtype=np.float64), 1.0) for w in (system_weights, reference_weights)
    ]
    gap = np.cumsum(np.concatenate([shares[0], -shares[1]], axis=1)[:, order], axis=1)
    last_of_ties = np.append(np.diff(values[order]) > 0, True)
    return np.abs(gap[:, last_of_ties]).max(axis=1)

"""Maximum mean discrepancy between two clouds of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from scldm.evaluation.bootstrap import Estimate, WeightsX, WeightsY, X, Y
from scldm.evaluation.compare import Comparison
from scldm.evaluation.metrics.nearest import blocks, squared_distances
from scldm.evaluation.metrics.registry import Metric, metric
from scldm.evaluation.records import MetricInfo

__all__ = ["BANDWIDTH_FACTORS", "MMD2_PUBLISHED", "PUBLISHED_BANDWIDTHS", "median_bandwidth", "mmd2", "mmd2_estimate"]

#: Squared widths of the kernels of `mmd2_estimate`, in units of the median squared distance between reference cells.
BANDWIDTH_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
PUBLISHED_BANDWIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_BLOCK_ROWS = 512
_MEDIAN_CELLS = 1000


@metric(
    "mmd2",
    group="distances",
    direction="lower",
    display_name="MMD²",
    description="Squared maximum mean discrepancy in the feature space, unbiased, mean of Gaussian kernels "
    "exp(-d^2 / (m f)) with f = 1/4, 1/2, 1, 2, 4 and m the median squared distance between reference cells.",
    scope="space",
)
def _mmd2(c: Comparison, space: str) -> Estimate:
    reference = c.reference.features[space]
    median = 2 * median_bandwidth(reference) ** 2
    return mmd2_estimate(c.system.features[space], reference, median, c.system.weights, c.reference.weights)


def _mmd2_published(c: Comparison, space: str) -> Estimate:
    system, reference = c.system.features[space], c.reference.features[space]
    return Estimate(mmd2(system, reference, PUBLISHED_BANDWIDTHS, unbiased=False))


#: Only in the profile ``published``, so it is not registered.
MMD2_PUBLISHED = Metric(
    MetricInfo(
        "mmd2_published",
        "MMD² published",
        "distances",
        "lower",
        "Squared maximum mean discrepancy as in published comparisons: biased, sum of Gaussian kernels with standard "
        "deviations 1, 2, 4, 8 and 16 (depends on the scale of the data and the number of cells).",
    ),
    _mmd2_published,
    scope="space",
)


def median_bandwidth(reference: X) -> float:
    """Choose a Gaussian kernel's standard deviation by the median heuristic.

    Twice its square is the median squared distance between reference cells (1,000 of them, evenly spaced), so that the
    kernel is ``exp(-|a - b|^2 / median)``, whatever the scale of the data. It depends on the reference alone: all
    systems are measured with the same kernel.
    """
    some = reference[np.linspace(0, len(reference) - 1, min(len(reference), _MEDIAN_CELLS)).astype(int)]
    median = float(np.median(cdist(some, some, "sqeuclidean")[np.triu_indices(len(some), k=1)]))
    return float(np.sqrt(median / 2)) or 1.0


def mmd2(x: X, y: Y, bandwidths: Sequence[float], unbiased: bool = True) -> float:
    """Compute the squared maximum mean discrepancy under a sum of Gaussian kernels (Gretton et al., 2012).

    The kernel is ``sum_s exp(-|a - b|^2 / (2 s^2))`` over the bandwidths s, in units of the feature space. Unbiased, a
    point's similarity with itself is left out (U-statistic; zero on average for equal distributions and sometimes
    negative); the biased V-statistic is never negative.
    """

    def total(a: np.ndarray, b: np.ndarray) -> float:
        result = 0.0
        for rows in blocks(len(a), _BLOCK_ROWS):
            squared = cdist(a[rows], b, "sqeuclidean")
            result += sum(float(np.exp(squared / (-2.0 * s * s)).sum()) for s in bandwidths)
        return result

    n, m = len(x), len(y)
    within_x, within_y, between = total(x, x), total(y, y), total(x, y) / (n * m)
    if unbiased:
        itself = len(bandwidths)
        return (within_x - n * itself) / (n * (n - 1)) + (within_y - m * itself) / (m * (m - 1)) - 2 * between
    return within_x / n**2 + within_y / m**2 - 2 * between


def mmd2_estimate(x: X, y: Y, median: float, weights_x: WeightsX, weights_y: WeightsY) -> Estimate:
    """Estimate the unbiased squared maximum mean discrepancy under the mean of five Gaussian kernels.

    The kernels are ``exp(-|a - b|^2 / (median f))`` with f = 1/4, 1/2, 1, 2 and 4 and the median squared distance
    between reference cells. With weights w the statistic is ``sum_{i != j} w_i w_j k_ij / sum_{i != j} w_i w_j`` and so
    on, so that a cell drawn twice is not its own neighbour.
    """
    within_x = _kernel_means(x, x, median, weights_x, weights_x, same=True)
    within_y = _kernel_means(y, y, median, weights_y, weights_y, same=True)
    between = _kernel_means(x, y, median, weights_x, weights_y, same=False)
    value, *replicates = within_x + within_y - 2 * between
    return Estimate(float(value), np.array(replicates))


def _kernel_means(
    a: X, b: Y, median: float, weights_a: WeightsX, weights_b: WeightsY, same: bool
) -> Float[np.ndarray, " 1+resamples"]:
    """Compute the mean kernel between two samples: first as they are, then under every resample's weights."""
    total = np.zeros(1 + len(weights_a))
    # float32 is enough for the spread of the replicates, and twice as fast; the value itself is summed in float64
    columns = np.ascontiguousarray(weights_b.T, dtype=np.float32)
    for rows in blocks(len(a), _BLOCK_ROWS):
        kernel = _multi_kernel(squared_distances(a[rows], b), median)
        if same:
            kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)] = 0.0
        total[0] += kernel.sum()
        total[1:] += np.einsum("ir,ri->r", kernel.astype(np.float32) @ columns, weights_a[:, rows], dtype=np.float64)
    pairs_a, pairs_b = weights_a.sum(axis=1, dtype=np.float64), weights_b.sum(axis=1, dtype=np.float64)
    pairs = pairs_a * pairs_b - ((weights_a.astype(np.float64) ** 2).sum(axis=1) if same else 0.0)
    n_pairs = len(a) * (len(b) - int(same))
    return total / np.maximum(np.concatenate([[n_pairs], pairs]), 1.0)


def _multi_kernel(squared: np.ndarray, median: float) -> np.ndarray:
    """Average the Gaussian kernels of all bandwidths: each is the square of the next wider one."""
    power = np.exp(squared / (-median * BANDWIDTH_FACTORS[-1]))
    result = power.copy()
    for _ in BANDWIDTH_FACTORS[1:]:
        power *= power
        result += power
    return result / len(BANDWIDTH_FACTORS)

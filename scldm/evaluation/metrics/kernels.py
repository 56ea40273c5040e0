"""Maximum mean discrepancy between two clouds of cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from scldm.evaluation.compare import Comparison, Masks, Rows
from scldm.evaluation.metrics.nearest import blocks, squared_distances
from scldm.evaluation.metrics.registry import Metric, metric
from scldm.evaluation.metrics.rows import X, Y
from scldm.evaluation.records import MetricInfo

__all__ = ["BANDWIDTH_FACTORS", "MMD2_PUBLISHED", "PUBLISHED_BANDWIDTHS", "median_bandwidth", "mmd2", "mmd2_rows"]

#: Squared widths of the kernels of `mmd2_rows`, in units of the median squared distance between fitting cells.
BANDWIDTH_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
PUBLISHED_BANDWIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_BLOCK_ROWS = 512
_MEDIAN_CELLS = 1000
# Kernels between so many cells are kept (250 MB); between more they are computed anew for every set of draws.
_MAX_KEPT_CELLS = 8000


@metric(
    "mmd2",
    group="distances",
    direction="lower",
    display_name="MMD²",
    description="Squared maximum mean discrepancy in the feature space, unbiased, mean of Gaussian kernels "
    "exp(-d^2 / (m f)) with f = 1/4, 1/2, 1, 2, 4 and m the median squared distance between real cells (those that the "
    "space was fitted on).",
    values="about -0.01 to 2",
    degenerate="0 on average for real cells, and as often negative as positive.",
    scope="space",
)
def _mmd2(c: Comparison, space: str) -> Rows:
    fitting = c.fitted.fitting
    median = fitting.once(f"median, {space}", lambda: 2 * median_bandwidth(fitting.features[space]) ** 2)
    points = c.pool.features[space]
    if len(points) > _MAX_KEPT_CELLS:
        return mmd2_rows(points, median, c.system, c.reference)
    kernel = c.pool.once(f"kernel, {space}", lambda: np.concatenate(list(_kernel_blocks(points, median))))
    return mmd2_rows(points, median, c.system, c.reference, kernel)


def _mmd2_published(c: Comparison, space: str) -> Rows:
    points = c.pool.features[space]
    return np.array([mmd2(points[s], points[r], PUBLISHED_BANDWIDTHS, unbiased=False) for s, r in c.draws])


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


def median_bandwidth(cells: X) -> float:
    """Choose a Gaussian kernel's standard deviation by the median heuristic.

    Twice its square is the median squared distance between the cells (1,000 of them, evenly spaced), so that the kernel
    is ``exp(-|a - b|^2 / median)``, whatever the scale of the data.
    """
    some = cells[np.linspace(0, len(cells) - 1, min(len(cells), _MEDIAN_CELLS)).astype(int)]
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


def mmd2_rows(
    points: X, median: float, system: Masks, reference: Masks, kernel: Float[np.ndarray, "n n"] | None = None
) -> Rows:
    """Compute the unbiased squared maximum mean discrepancy under the mean of five Gaussian kernels, for every row.

    The kernels are ``exp(-|a - b|^2 / (median f))`` with f = 1/4, 1/2, 1, 2 and 4. With masks s and r of n points each
    it is ``(s - r)' K (s - r)``, but for different numbers of pairs; a point is not its own neighbour.

    Parameters
    ----------
    points
        Of both sides.
    median
        The unit of the squared widths.
    system, reference
        Which points are on either side.
    kernel
        All kernel means between points, zero on the diagonal, if they are known.
    """
    # float32 is enough: the rounding of a sum of kernels is a millionth of it
    masks = np.concatenate([system, reference]).astype(np.float32)
    ours, theirs = masks[: len(system)], masks[len(system) :]
    within_s, within_r, between = (np.zeros(len(system)) for _ in range(3))
    parts = blocks(len(points), _BLOCK_ROWS)
    kernels = _kernel_blocks(points, median) if kernel is None else (kernel[rows] for rows in parts)
    for rows, block in zip(blocks(len(points), _BLOCK_ROWS), kernels, strict=True):
        near = masks @ block.T
        near_s, near_r = near[: len(system)], near[len(system) :]
        within_s += np.einsum("ri,ri->r", near_s, ours[:, rows], dtype=np.float64)
        within_r += np.einsum("ri,ri->r", near_r, theirs[:, rows], dtype=np.float64)
        between += np.einsum("ri,ri->r", near_r, ours[:, rows], dtype=np.float64)
    n, m = system.sum(axis=1, dtype=np.float64), reference.sum(axis=1, dtype=np.float64)
    pairs_s, pairs_r = np.maximum(n * (n - 1), 1.0), np.maximum(m * (m - 1), 1.0)
    return within_s / pairs_s + within_r / pairs_r - 2 * between / np.maximum(n * m, 1.0)


def _kernel_blocks(points: X, median: float):  # type: ignore[no-untyped-def]
    """Average the Gaussian kernels of all bandwidths between all points, block by block of rows."""
    for rows in blocks(len(points), _BLOCK_ROWS):
        # each kernel is the square of the next wider one
        power = np.exp(squared_distances(points[rows], points) / (-median * BANDWIDTH_FACTORS[-1]))
        result = power.copy()
        for _ in BANDWIDTH_FACTORS[1:]:
            power *= power
            result += power
        result /= len(BANDWIDTH_FACTORS)
        result[np.arange(len(result)), np.arange(rows.start, rows.stop)] = 0.0
        yield result.astype(np.float32)

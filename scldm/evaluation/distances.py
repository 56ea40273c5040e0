"""Distances between two clouds of cells in a feature space; pure functions of two arrays.

Everything quadratic is computed in blocks of rows, except the cost matrix that exact optimal transport needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

__all__ = [
    "N_NEIGHBOURS",
    "PUBLISHED_BANDWIDTHS",
    "frechet_distance",
    "median_bandwidth",
    "mmd2",
    "nearest_neighbour_accuracy",
    "precision_and_recall",
    "wasserstein2",
]

N_NEIGHBOURS = 5
PUBLISHED_BANDWIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_BLOCK_ROWS = 512
_MEDIAN_CELLS = 1000
_MAX_TRANSPORT_ITERATIONS = 50_000_000


def _blocks(n_rows: int) -> Iterator[slice]:
    """Cut rows into blocks, so that a block of distances stays small."""
    return (slice(start, min(start + _BLOCK_ROWS, n_rows)) for start in range(0, n_rows, _BLOCK_ROWS))


def wasserstein2(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> float:
    """Compute the 2-Wasserstein distance: the square root of the exact optimal transport cost (squared Euclidean).

    Its value for two samples of one distribution is not zero and falls with their size: compare at equal n only.
    Needs one n x m float64 matrix (200 MB at 5,000 cells).
    """
    import ot

    cost = cdist(x, y, "sqeuclidean")
    transport_cost = ot.emd2(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=_MAX_TRANSPORT_ITERATIONS)
    return float(np.sqrt(max(float(transport_cost), 0.0)))


def median_bandwidth(reference: Float[np.ndarray, "n features"]) -> float:
    """Choose a Gaussian kernel's standard deviation by the median heuristic.

    Twice its square is the median squared distance between reference cells (the first 1,000), so that the kernel is
    ``exp(-|a - b|^2 / median)``, whatever the scale of the data. It depends on the reference alone: all systems are
    measured with the same kernel.
    """
    some = reference[:_MEDIAN_CELLS]
    median = float(np.median(cdist(some, some, "sqeuclidean")[np.triu_indices(len(some), k=1)]))
    return float(np.sqrt(median / 2)) or 1.0


def mmd2(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    bandwidths: Sequence[float],
    unbiased: bool = True,
) -> float:
    """Compute the squared maximum mean discrepancy under a sum of Gaussian kernels.

    The kernel is ``sum_s exp(-|a - b|^2 / (2 s^2))`` over the bandwidths s.

    Parameters
    ----------
    x, y
        The two samples.
    bandwidths
        The standard deviations s, in units of the feature space.
    unbiased
        Leave a point's similarity with itself out (U-statistic; zero on average for equal distributions and
        sometimes negative). False is the biased V-statistic, which is never negative.
    """

    def total(a: np.ndarray, b: np.ndarray) -> float:
        result = 0.0
        for rows in _blocks(len(a)):
            squared = cdist(a[rows], b, "sqeuclidean")
            result += sum(float(np.exp(squared / (-2.0 * s * s)).sum()) for s in bandwidths)
        return result

    n, m = len(x), len(y)
    within_x, within_y, between = total(x, x), total(y, y), total(x, y) / (n * m)
    if unbiased:
        itself = len(bandwidths)
        return (within_x - n * itself) / (n * (n - 1)) + (within_y - m * itself) / (m * (m - 1)) - 2 * between
    return within_x / n**2 + within_y / m**2 - 2 * between


def frechet_distance(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> float:
    """Compute the squared Frechet distance between the Gaussians with the means and covariances of two samples.

    ``|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x^(1/2) S_y S_x^(1/2))^(1/2))``, as in the Frechet inception distance.
    """
    covariance_x = np.atleast_2d(np.cov(x, rowvar=False))
    covariance_y = np.atleast_2d(np.cov(y, rowvar=False))
    values, vectors = np.linalg.eigh(covariance_x)
    root_x = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    # the symmetric form has real eigenvalues, where sqrtm of S_x S_y drifts into complex numbers
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root_x @ covariance_y @ root_x), 0, None)).sum()
    shift = x.mean(axis=0) - y.mean(axis=0)
    return max(0.0, float(shift @ shift + np.trace(covariance_x) + np.trace(covariance_y) - 2 * overlap))


def nearest_neighbour_accuracy(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> float:
    """Compute the leave-one-out accuracy of a 1-nearest-neighbour classifier that tells two samples apart.

    One half for samples of equal size from one distribution, 1 when they are separated, and below one half when
    each point has a near copy in the other sample. Points at exactly the same least distance share the vote.
    """
    points = np.concatenate([x, y])
    sample = np.repeat([0, 1], [len(x), len(y)])
    correct = 0.0
    for rows in _blocks(len(points)):
        squared = cdist(points[rows], points, "sqeuclidean")
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf
        nearest = squared == squared.min(axis=1, keepdims=True)
        same = nearest & (sample[rows, None] == sample)
        correct += float((same.sum(axis=1) / nearest.sum(axis=1)).sum())
    return correct / len(points)


def precision_and_recall(
    real: Float[np.ndarray, "n features"],
    generated: Float[np.ndarray, "m features"],
    n_neighbours: int = N_NEIGHBOURS,
) -> tuple[float, float]:
    """Compute improved precision and recall (Kynkäänniemi et al., 2019).

    A sample's manifold is the union of balls round its points that reach to their `n_neighbours`-th nearest
    neighbour in that sample. Precision is the share of generated cells on the real manifold, recall the share of
    real cells on the generated manifold.
    """
    return _share_inside(generated, real, n_neighbours), _share_inside(real, generated, n_neighbours)


def _share_inside(points: np.ndarray, manifold: np.ndarray, n_neighbours: int) -> float:
    """Share of `points` that lie in at least one neighbourhood ball of `manifold`."""
    n_neighbours = min(n_neighbours, len(manifold) - 1)
    # position 0 of a sorted row is the point itself, at distance zero
    radius = np.concatenate(
        [
            np.partition(cdist(manifold[rows], manifold, "sqeuclidean"), n_neighbours, axis=1)[:, n_neighbours]
            for rows in _blocks(len(manifold))
        ]
    )
    inside = [(cdist(points[rows], manifold, "sqeuclidean") <= radius).any(axis=1) for rows in _blocks(len(points))]
    return float(np.concatenate(inside).mean())

"""Distances between two clouds of cells in a feature space, and what they would be in every bootstrap resample.

Pure functions of arrays. Everything quadratic is computed in blocks of rows, except the cost matrix that exact optimal
transport needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from scldm.evaluation.neighbours import blocks, squared_distances
from scldm.evaluation.resampling import Estimate, weighted_mean

__all__ = [
    "BANDWIDTH_FACTORS",
    "EXACT_TRANSPORT_CELLS",
    "N_PROJECTIONS",
    "PUBLISHED_BANDWIDTHS",
    "frechet_distance",
    "frechet_estimate",
    "from_potentials",
    "median_bandwidth",
    "mmd2",
    "mmd2_estimate",
    "sliced_potentials",
    "transport_potentials",
    "wasserstein2",
]

#: Exact optimal transport takes seconds and a matrix of 200 MB at so many cells on either side, and grows faster than
#: their square: beyond, a subsample of this size stands for all.
EXACT_TRANSPORT_CELLS = 5000
N_PROJECTIONS = 256
#: Squared widths of the kernels of `mmd2_estimate`, in units of the median squared distance between reference cells.
BANDWIDTH_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
PUBLISHED_BANDWIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
_BLOCK_ROWS = 512
_MEDIAN_CELLS = 1000
_MAX_TRANSPORT_ITERATIONS = 50_000_000


# optimal transport ---------------------------------------------------------------------------------------------------


def wasserstein2(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> float:
    """Compute the 2-Wasserstein distance: the square root of the exact optimal transport cost (squared Euclidean).

    Its value for two samples of one distribution is not zero and falls with their size: compare at equal n only.
    Needs one n x m float64 matrix (200 MB at 5,000 cells).
    """
    potentials = transport_potentials(x, y)
    return float(np.sqrt(max(float(potentials[0].mean() + potentials[1].mean()), 0.0)))


def transport_potentials(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Solve exact optimal transport for its dual: one price per point, whose two means add up to the cost W2^2."""
    import ot

    cost = cdist(x, y, "sqeuclidean")
    _, log = ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=_MAX_TRANSPORT_ITERATIONS, log=True)
    return np.asarray(log["u"], np.float64), np.asarray(log["v"], np.float64)


def sliced_potentials(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    n_projections: int = N_PROJECTIONS,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Solve optimal transport along random lines, where sorting is the solution, and average the dual prices.

    The two means add up to the squared sliced 2-Wasserstein distance (Bonneel et al., 2015): the mean over directions
    of W2^2 between the projections, here times the number of features, so that a shift counts as in W2.

    Raises
    ------
    ValueError
        If the two sides have different numbers of cells.
    """
    import ot

    if len(x) != len(y):
        raise ValueError(f"sliced transport needs equally many cells, not {len(x)} and {len(y)}")
    directions = ot.sliced.get_random_projections(x.shape[1], n_projections, seed=seed)
    price_x, price_y = np.zeros(len(x)), np.zeros(len(y))
    for some in blocks(n_projections, 32):
        a, b = x @ directions[:, some], y @ directions[:, some]
        order_a, order_b = np.argsort(a, axis=0), np.argsort(b, axis=0)
        a, b = np.take_along_axis(a, order_a, 0), np.take_along_axis(b, order_b, 0)
        # Complementary slackness bounds the step of the price from one sorted point to the next; this is the middle.
        step = np.diff(a, axis=0) * (a[1:] + a[:-1] - b[1:] - b[:-1])
        price_a = np.concatenate([np.zeros((1, a.shape[1])), np.cumsum(step, axis=0)])
        price_b = (a - b) ** 2 - price_a
        for price, order, total in ((price_a, order_a, price_x), (price_b, order_b, price_y)):
            unsorted = np.empty_like(price)
            np.put_along_axis(unsorted, order, price, 0)
            total += unsorted.sum(axis=1)
    factor = x.shape[1] / n_projections
    return price_x * factor, price_y * factor


def from_potentials(
    potential_x: Float[np.ndarray, " n"],
    potential_y: Float[np.ndarray, " m"],
    weights_x: Float[np.ndarray, "resamples n"],
    weights_y: Float[np.ndarray, "resamples m"],
) -> Estimate:
    """Estimate a transport distance (the root of the cost) from dual prices.

    To first order the cost changes with the weights of the points as the weighted means of their prices do: the central
    limit theorem of del Barrio and Loubes (2019). That takes no further transport problem per resample.
    """
    cost_x, cost_y = weighted_mean(potential_x, weights_x), weighted_mean(potential_y, weights_y)
    assert cost_x.replicates is not None
    assert cost_y.replicates is not None
    replicates = np.sqrt(np.maximum(cost_x.replicates + cost_y.replicates, 0.0))
    return Estimate(float(np.sqrt(max(cost_x.value + cost_y.value, 0.0))), replicates)


# maximum mean discrepancy --------------------------------------------------------------------------------------------


def median_bandwidth(reference: Float[np.ndarray, "n features"]) -> float:
    """Choose a Gaussian kernel's standard deviation by the median heuristic.

    Twice its square is the median squared distance between reference cells (1,000 of them, evenly spaced), so that the
    kernel is ``exp(-|a - b|^2 / median)``, whatever the scale of the data. It depends on the reference alone: all
    systems are measured with the same kernel.
    """
    some = reference[np.linspace(0, len(reference) - 1, min(len(reference), _MEDIAN_CELLS)).astype(int)]
    median = float(np.median(cdist(some, some, "sqeuclidean")[np.triu_indices(len(some), k=1)]))
    return float(np.sqrt(median / 2)) or 1.0


def mmd2(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    bandwidths: Sequence[float],
    unbiased: bool = True,
) -> float:
    """Compute the squared maximum mean discrepancy under a sum of Gaussian kernels (Gretton et al., 2012).

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


def mmd2_estimate(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    median: float,
    weights_x: Float[np.ndarray, "resamples n"],
    weights_y: Float[np.ndarray, "resamples m"],
) -> Estimate:
    """Estimate the unbiased squared maximum mean discrepancy under the mean of five Gaussian kernels.

    The kernels are ``exp(-|a - b|^2 / (median f))`` with f = 1/4, 1/2, 1, 2 and 4. With weights w the statistic is
    ``sum_{i != j} w_i w_j k_ij / sum_{i != j} w_i w_j`` and so on, so that a cell drawn twice is not its own neighbour.

    Parameters
    ----------
    x, y
        The two samples.
    median
        Median squared distance between reference cells.
    weights_x, weights_y
        From `draw_weights`.
    """
    within_x = _kernel_means(x, x, median, weights_x, weights_x, same=True)
    within_y = _kernel_means(y, y, median, weights_y, weights_y, same=True)
    between = _kernel_means(x, y, median, weights_x, weights_y, same=False)
    value, *replicates = within_x + within_y - 2 * between
    return Estimate(float(value), np.array(replicates))


def _kernel_means(
    a: Float[np.ndarray, "n features"],
    b: Float[np.ndarray, "m features"],
    median: float,
    weights_a: Float[np.ndarray, "resamples n"],
    weights_b: Float[np.ndarray, "resamples m"],
    same: bool,
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


# Frechet distance ----------------------------------------------------------------------------------------------------


def frechet_distance(x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "m features"]) -> float:
    """Compute the squared Frechet distance between the Gaussians with the means and covariances of two samples.

    ``|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x^(1/2) S_y S_x^(1/2))^(1/2))``, as in the Frechet inception distance
    (Heusel et al., 2017).
    """
    return float(_frechet(*_moments(x, np.ones((1, len(x)))), *_moments(y, np.ones((1, len(y)))))[0])


def frechet_estimate(
    x: Float[np.ndarray, "n features"],
    y: Float[np.ndarray, "m features"],
    weights_x: Float[np.ndarray, "resamples n"],
    weights_y: Float[np.ndarray, "resamples m"],
) -> Estimate:
    """Estimate the squared Frechet distance; see `frechet_distance`."""
    return Estimate(frechet_distance(x, y), _frechet(*_moments(x, weights_x), *_moments(y, weights_y)))


def _moments(
    x: Float[np.ndarray, "cells features"], weights: Float[np.ndarray, "resamples cells"]
) -> tuple[np.ndarray, np.ndarray]:
    """Compute means [resamples, features] and covariances [resamples, features, features] under every weighting."""
    n_features = x.shape[1]
    upper = np.triu_indices(n_features)
    origin = x.mean(axis=0)
    first = np.zeros((len(weights), n_features))
    second = np.zeros((len(weights), len(upper[0])))
    for rows in blocks(len(x), _BLOCK_ROWS):
        centred, own = x[rows] - origin, weights[:, rows].astype(np.float64)
        first += own @ centred
        second += own @ (centred[:, upper[0]] * centred[:, upper[1]])
    total = np.maximum(weights.sum(axis=1, dtype=np.float64), 2.0)[:, None]
    mean = first / total
    covariance = np.zeros((len(weights), n_features, n_features))
    covariance[:, upper[0], upper[1]] = (second - total * mean[:, upper[0]] * mean[:, upper[1]]) / (total - 1)
    covariance[:, upper[1], upper[0]] = covariance[:, upper[0], upper[1]]
    return mean + origin, covariance


def _frechet(
    mean_x: np.ndarray, covariance_x: np.ndarray, mean_y: np.ndarray, covariance_y: np.ndarray
) -> Float[np.ndarray, " resamples"]:
    """Compute squared Frechet distances of many pairs of Gaussians."""
    factor = _factor(covariance_x)
    # S_x = F F^T and F^T S_y F has the eigenvalues of S_x S_y; it is symmetric, where sqrtm drifts into complex numbers
    overlap = np.linalg.eigvalsh(factor.transpose(0, 2, 1) @ covariance_y @ factor)
    overlap = np.sqrt(np.clip(overlap, 0, None)).sum(axis=1)
    shift = ((mean_x - mean_y) ** 2).sum(axis=1)
    traces = np.trace(covariance_x, axis1=1, axis2=2) + np.trace(covariance_y, axis1=1, axis2=2)
    return np.maximum(0.0, shift + traces - 2 * overlap)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Factorise covariances as F F^T: by Cholesky, and where one is singular (few cells) by eigenvectors."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.clip(values, 0, None))[:, None, :]

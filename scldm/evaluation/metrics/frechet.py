"""The Fréchet distance between two clouds of cells."""

from __future__ import annotations

import numpy as np

from scldm.evaluation.compare import Comparison, Masks, Rows
from scldm.evaluation.metrics.nearest import blocks
from scldm.evaluation.metrics.registry import Limit, metric, times
from scldm.evaluation.metrics.rows import X, Y

__all__ = ["frechet_distance"]

_BLOCK_ROWS = 512


@metric(
    "frechet_distance",
    group="distances",
    direction="lower",
    display_name="Fréchet distance",
    description="Squared Frechet distance between Gaussians with the means and covariances of both sides in the "
    "feature space.",
    values="0 or more, in squared units of the space",
    degenerate="Blind to all but means and covariances; real cells have a positive value that falls with their number.",
    scope="space",
    # of real cells it is finite-sample bias: the limits are factors of that
    limits=Limit(
        "distances",
        times(1.3, 3.0),
        "The Fréchet distance to real cells is {value:.3g}, {loss:.1f} times that between real cells ({ceiling:.3g}).",
        "Fréchet distance",
        order=-1,
    ),
)
def _frechet_distance(c: Comparison, space: str) -> Rows:
    points = c.pool.features[space]
    return _frechet(*_moments(points, c.system), *_moments(points, c.reference))


def frechet_distance(x: X, y: Y) -> float:
    """Compute the squared Frechet distance between the Gaussians with the means and covariances of two samples.

    ``|mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x^(1/2) S_y S_x^(1/2))^(1/2))``, as in the Frechet inception distance
    (Heusel et al., 2017).
    """
    (x, every_x), (y, every_y) = ((points, np.ones((1, len(points)), dtype=bool)) for points in (x, y))
    return float(_frechet(*_moments(x, every_x), *_moments(y, every_y))[0])


def _moments(x: X, chosen: Masks) -> tuple[np.ndarray, np.ndarray]:
    """Compute means [rows, features] and covariances [rows, features, features] of the chosen cells in every row."""
    n_features = x.shape[1]
    upper = np.triu_indices(n_features)
    origin = x.mean(axis=0)
    first = np.zeros((len(chosen), n_features))
    second = np.zeros((len(chosen), len(upper[0])))
    for rows in blocks(len(x), _BLOCK_ROWS):
        centred, own = x[rows] - origin, chosen[:, rows].astype(np.float64)
        first += own @ centred
        second += own @ (centred[:, upper[0]] * centred[:, upper[1]])
    total = np.maximum(chosen.sum(axis=1, dtype=np.float64), 2.0)[:, None]
    mean = first / total
    covariance = np.zeros((len(chosen), n_features, n_features))
    covariance[:, upper[0], upper[1]] = (second - total * mean[:, upper[0]] * mean[:, upper[1]]) / (total - 1)
    covariance[:, upper[1], upper[0]] = covariance[:, upper[0], upper[1]]
    return mean + origin, covariance


def _frechet(mean_x: np.ndarray, covariance_x: np.ndarray, mean_y: np.ndarray, covariance_y: np.ndarray) -> Rows:
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

"""The baseline that knows correlations: a Gaussian per combination of labels in principal components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.baselines.base import Baseline
from scldm.evaluation.cells import log1p_cp10k
from scldm.evaluation.spaces import FeatureSpace

__all__ = ["N_COMPONENTS", "PCAGaussian"]

N_COMPONENTS = 50
# A label needs this many cells per component before its own covariance is used as it is.
_CELLS_PER_COMPONENT = 2


@dataclass(frozen=True, eq=False, kw_only=True)
class PCAGaussian(Baseline):
    """Gaussian scores on principal components of log1p CP10K, as proportions; Poisson counts at a real depth.

    Knows the means and the linear correlations of every labelled population; what it misses is that counts vary more
    than Poisson, that expression is not linear, and that many genes are silent.

    The centre is the mean of the training cells in log1p CP10K; the components are at most 50 orthonormal directions,
    fewer where cells or genes are. Every label has a mean score and a covariance ``F F^T``, given by its factor ``F``.
    """

    description: ClassVar[str] = (
        "a Gaussian per combination of labels in 50 principal components of log1p CP10K, Poisson counts"
    )

    centre: Float[np.ndarray, " genes"]
    components: Float[np.ndarray, "components genes"]
    means: Float[np.ndarray, "labels components"]
    factors: Float[np.ndarray, "labels components components"]

    @classmethod
    def fit(cls, counts: csr_matrix, labels: Int[np.ndarray, " cells"]) -> PCAGaussian:
        """Fit the components to all cells, and a mean and a full covariance to the scores of every label.

        A label with fewer than 2 cells per component takes the missing share of its covariance from the one pooled
        within all labels; a label with a single cell takes all of it.
        """
        values = log1p_cp10k(counts)
        centre = np.asarray(values.mean(axis=0)).ravel()
        components = _principal_directions(values, centre)
        scores = np.asarray(values @ components.T) - centre @ components.T
        means, factors = _gaussians(scores, labels)
        depths = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        fitted = {"centre": centre, "components": components, "means": means, "factors": factors}
        return cls(**fitted, labels=labels, depths=depths)

    def _counts(self, donors: Int[np.ndarray, " cells"], rng: np.random.Generator) -> np.ndarray:
        labels = self.labels[donors]
        noise = rng.standard_normal((len(donors), len(self.components)))
        scores = self.means[labels] + np.einsum("cij,cj->ci", self.factors[labels], noise)
        return rng.poisson(self.depths[donors, None] * self._proportions(scores))

    def _proportions(self, scores: Float[np.ndarray, "cells components"]) -> Float[np.ndarray, "cells genes"]:
        """Map scores back to shares of a cell's counts; what would be negative is zero."""
        expression = np.expm1(np.clip(self.centre + scores @ self.components, 0.0, None))
        total = expression.sum(axis=1, keepdims=True)
        # Far out, a cell can be negative in all genes: it gets the average of the training cells.
        expression = np.where(total > 0, expression, np.expm1(self.centre))
        return expression / expression.sum(axis=1, keepdims=True)


def _principal_directions(values: csr_matrix, centre: np.ndarray) -> Float[np.ndarray, "components genes"]:
    """Fit principal components without making the matrix dense; none if the cells do not differ."""
    variance = float(values.multiply(values).mean(axis=0).sum() - centre @ centre)
    if min(values.shape) < 2 or variance <= 1e-12 * float(centre @ centre):
        return np.zeros((0, values.shape[1]))
    return FeatureSpace.fit(values, N_COMPONENTS).components


def _gaussians(
    scores: Float[np.ndarray, "cells components"], labels: Int[np.ndarray, " cells"]
) -> tuple[Float[np.ndarray, "labels components"], Float[np.ndarray, "labels components components"]]:
    """Mean and matrix square root of the covariance of every label."""
    n_labels, n_components = int(labels.max()) + 1, scores.shape[1]
    means = np.zeros((n_labels, n_components))
    scatters = np.zeros((n_labels, n_components, n_components))
    freedom = np.zeros(n_labels)
    for label in np.unique(labels):
        own = scores[labels == label]
        means[label] = own.mean(axis=0)
        residual = own - means[label]
        scatters[label], freedom[label] = residual.T @ residual, len(own) - 1
    pooled = scatters.sum(axis=0) / max(freedom.sum(), 1.0)
    factors = np.zeros_like(scatters)
    for label in range(n_labels):
        share = min(1.0, freedom[label] / max(_CELLS_PER_COMPONENT * n_components, 1))
        covariance = share * scatters[label] / max(freedom[label], 1.0) + (1 - share) * pooled
        variances, directions = np.linalg.eigh(covariance)
        factors[label] = directions * np.sqrt(np.clip(variances, 0.0, None))
    return means, factors

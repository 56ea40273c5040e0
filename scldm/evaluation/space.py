"""The feature space in which cells are compared: principal components of log1p CP10K."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix

__all__ = ["N_COMPONENTS", "FeatureSpace", "log1p_cp10k"]

N_COMPONENTS = 30


def log1p_cp10k(counts: csr_matrix) -> csr_matrix:
    """Scale every cell to 10,000 counts and take log(1 + x).

    Parameters
    ----------
    counts
        UMI counts, cells x genes. A cell without any count stays zero.
    """
    library_size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = 1e4 / np.maximum(library_size, 1.0)
    data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr)))
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A linear map from log1p CP10K to the principal components of the cells that it was fitted on.

    Attributes
    ----------
    mean
        Mean of the fitted cells, log1p CP10K.
    components
        Orthonormal directions, the one with the most variance first.
    """

    mean: Float[np.ndarray, " genes"]
    components: Float[np.ndarray, "features genes"]

    @classmethod
    def fit(cls, log1p_cp10k: csr_matrix, n_components: int = N_COMPONENTS, seed: int = 0) -> FeatureSpace:
        """Fit the principal components (centred, not scaled) without making the matrix dense.

        Parameters
        ----------
        log1p_cp10k
            log1p CP10K of the fitting cells, cells x genes.
        n_components
            Number of components; fewer when there are not enough cells or genes.
        seed
            Of the iterative solver's start vector.
        """
        from sklearn.decomposition import PCA

        n_components = min(n_components, min(log1p_cp10k.shape) - 1)
        pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(log1p_cp10k)
        return cls(mean=pca.mean_, components=pca.components_)

    def transform(self, log1p_cp10k: csr_matrix) -> Float[np.ndarray, "cells features"]:
        """Project cells, given as log1p CP10K, into the space."""
        return np.asarray(log1p_cp10k @ self.components.T) - self.mean @ self.components.T

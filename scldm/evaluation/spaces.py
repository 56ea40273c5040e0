"""Where distances between cells are measured: principal components, or the latent space of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import anndata as ad
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from scldm.errors import UserError
from scldm.evaluation.cells import Cells

__all__ = ["N_COMPONENTS", "N_VARIABLE_GENES", "FeatureSpace", "LatentSpace", "Space", "VariableGeneSpace"]

N_COMPONENTS = 30
N_VARIABLE_GENES = 2000
N_ABUNDANCE_BINS = 20
MAX_STANDARDISED = 10.0
# Standardised values are not sparse: so many cells at a time (4,096 x 2,000 float64 are 64 MB).
_BLOCK_CELLS = 4096


@runtime_checkable
class Space(Protocol):
    """A map from cells to points between which distances are measured; the same for all systems."""

    @property
    def description(self) -> str:
        """What it is, in one line of the report."""

    def transform(self, cells: Cells) -> Float[np.ndarray, "cells features"]:
        """Give the position of every cell."""


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """A linear map from log1p CP10K to the principal components of the cells that it was fitted on.

    The mean is that of the fitted cells; the components are orthonormal, the one with the most variance first.
    """

    mean: Float[np.ndarray, " genes"]
    components: Float[np.ndarray, "features genes"]

    @classmethod
    def fit(cls, log1p_cp10k: csr_matrix | np.ndarray, n_components: int = N_COMPONENTS, seed: int = 0) -> FeatureSpace:
        """Fit the principal components (centred, not scaled) without making a sparse matrix dense.

        There are fewer components where there are not enough cells or genes; the seed is of the solver's start vector.
        Raises ``UserError`` if the cells hardly differ.
        """
        from scipy.sparse.linalg import ArpackError
        from sklearn.decomposition import PCA

        n_components = min(n_components, min(log1p_cp10k.shape) - 1)
        try:
            pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(log1p_cp10k)
        except ArpackError as error:
            raise UserError(
                f"The {log1p_cp10k.shape[0]} real cells that the spaces are fitted on are alike, or nearly: there is "
                "nothing to tell cells apart by"
            ) from error
        return cls(mean=pca.mean_, components=pca.components_)

    @property
    def n_features(self) -> int:
        """Number of components."""
        return len(self.components)

    @property
    def description(self) -> str:
        """What it is."""
        return f"{self.n_features} principal components of log1p CP10K, all {len(self.mean):,} judged genes, centred"

    def transform(self, cells: Cells) -> Float[np.ndarray, "cells features"]:
        """Project cells into the space."""
        return np.asarray(cells.log1p_cp10k @ self.components.T) - self.mean @ self.components.T


@dataclass(frozen=True, eq=False)
class VariableGeneSpace:
    """Principal components of the most variable genes, each gene standardised: rare types weigh more, depth less.

    Genes are given by position; mean and scale (the standard deviation) are those of the fitting cells in log1p CP10K.
    """

    genes: Int[np.ndarray, " chosen"]
    mean: Float[np.ndarray, " chosen"]
    scale: Float[np.ndarray, " chosen"]
    pca: FeatureSpace

    @classmethod
    def fit(cls, cells: Cells, n_genes: int = N_VARIABLE_GENES, seed: int = 0) -> VariableGeneSpace:
        """Choose genes as ``scanpy.pp.highly_variable_genes`` does (flavour ``seurat``), and fit the components.

        All genes that vary are taken when there are no more; the seed is of the solver's start vector.
        """
        values = cells.log1p_cp10k
        genes = _variable_genes(values, n_genes)
        chosen = values[:, genes].toarray()
        mean, scale = chosen.mean(axis=0), chosen.std(axis=0)
        scale[scale == 0] = 1.0
        standardised = np.clip((chosen - mean) / scale, -MAX_STANDARDISED, MAX_STANDARDISED)
        return cls(genes, mean, scale, FeatureSpace.fit(standardised, seed=seed))

    @property
    def description(self) -> str:
        """What it is."""
        return (
            f"{self.pca.n_features} principal components of the {len(self.genes):,} most variable genes, log1p CP10K "
            f"standardised and clipped at {MAX_STANDARDISED:.0f}"
        )

    def transform(self, cells: Cells) -> Float[np.ndarray, "cells features"]:
        """Project cells into the space."""
        values = cells.log1p_cp10k[:, self.genes]
        features = np.zeros((len(cells), self.pca.n_features))
        for start in range(0, len(cells), _BLOCK_CELLS):
            rows = slice(start, start + _BLOCK_CELLS)
            standardised = (values[rows].toarray() - self.mean) / self.scale
            np.clip(standardised, -MAX_STANDARDISED, MAX_STANDARDISED, out=standardised)
            features[rows] = (standardised - self.pca.mean) @ self.pca.components.T
        return features


def _variable_genes(log1p_cp10k: csr_matrix, n_genes: int) -> Int[np.ndarray, " chosen"]:
    """Choose the most variable genes, in their order: the most dispersed of similar mean (Satija et al., 2015).

    Written out because scanpy's compiles for seconds on the first call, and changes the number of threads of other
    libraries.
    """
    cp10k = csr_matrix((np.expm1(log1p_cp10k.data), log1p_cp10k.indices, log1p_cp10k.indptr), log1p_cp10k.shape)
    n_cells = cp10k.shape[0]
    mean = np.asarray(cp10k.sum(axis=0)).ravel() / n_cells
    squares = np.asarray(cp10k.multiply(cp10k).sum(axis=0)).ravel()
    variance = np.maximum(squares / n_cells - mean**2, 0.0) * n_cells / max(n_cells - 1, 1)
    varying = np.flatnonzero(variance > 1e-12 * squares / n_cells)
    if len(varying) <= n_genes:
        return varying if len(varying) >= 2 else np.arange(len(mean))
    dispersion = pd.Series(np.log(variance[varying] / mean[varying]))
    bins = dispersion.groupby(pd.cut(np.log1p(mean[varying]), N_ABUNDANCE_BINS, labels=False))
    centre, spread = bins.transform("mean"), bins.transform("std")
    # a gene alone in its bin has nothing to be compared with: it counts as one standard deviation above
    alone = spread.isna()
    spread[alone], centre[alone] = centre[alone], 0.0
    score = ((dispersion - centre) / spread).to_numpy()
    return np.sort(varying[np.argsort(-score, kind="stable")[:n_genes]])


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """The latent space of a model, each coordinate divided by its standard deviation over the fitting cells.

    The model is anything with ``get_latent_representation(adata)`` that gives one row per cell.
    """

    model: Any
    scale: Float[np.ndarray, " features"]

    @classmethod
    def fit(cls, model: Any, cells: Cells) -> LatentSpace:
        """Encode the fitting cells and measure the spread of every coordinate.

        Raises ``ValueError`` if the model does not give one finite row of numbers per cell.
        """
        scale = _encode(model, cells).std(axis=0)
        scale[scale < 1e-12] = 1.0
        return cls(model, scale)

    @property
    def description(self) -> str:
        """What it is."""
        return f"{len(self.scale)} latent coordinates of the given model, standardised"

    def transform(self, cells: Cells) -> Float[np.ndarray, "cells features"]:
        """Encode cells."""
        return _encode(self.model, cells) / self.scale


def _encode(model: Any, cells: Cells) -> Float[np.ndarray, "cells features"]:
    obs = pd.DataFrame(index=[str(i) for i in range(len(cells))])
    adata = ad.AnnData(cells.counts.copy(), obs=obs, var=pd.DataFrame(index=cells.genes))
    latent = np.asarray(model.get_latent_representation(adata), dtype=np.float64)
    if latent.ndim != 2 or len(latent) != len(cells) or not np.isfinite(latent).all():
        raise ValueError(
            f"the model's latent representation of {len(cells)} cells has the shape {latent.shape} or values that are "
            "not finite; one row of numbers per cell is needed"
        )
    return latent

"""Agreement of two sets of cells gene by gene and between genes; pure functions of matrices of cells x genes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

__all__ = [
    "N_CORRELATED_GENES",
    "gene_correlations",
    "gene_gene_agreement",
    "gene_means",
    "mean_absolute_error",
    "pearson",
    "zero_fractions",
]

# At a few hundred cells, correlations of rarer genes are mostly sampling noise: two halves of the same 1,160 real PBMCs
# agree to .88 over the 200 most abundant genes and to .93 over these 50 (a baseline without correlations: .83 and .89).
N_CORRELATED_GENES = 50


def gene_means(matrix: csr_matrix) -> Float[np.ndarray, " genes"]:
    """Compute every gene's mean over cells, in the unit of the matrix."""
    return np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel() / matrix.shape[0]


def zero_fractions(counts: csr_matrix) -> Float[np.ndarray, " genes"]:
    """Compute for every gene the share of cells in which its count is zero."""
    return 1.0 - np.bincount(counts.indices[counts.data != 0], minlength=counts.shape[1]) / counts.shape[0]


def mean_absolute_error(x: Float[np.ndarray, " genes"], y: Float[np.ndarray, " genes"]) -> float:
    """Compute the mean absolute difference of two profiles."""
    return float(np.abs(x - y).mean())


def pearson(x: Float[np.ndarray, " values"], y: Float[np.ndarray, " values"]) -> float:
    """Compute Pearson's correlation; zero when one side is constant (a generator without any structure)."""
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0


def gene_correlations(log1p_cp10k: csr_matrix, genes: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen chosen"]:
    """Compute Pearson's correlation over cells between the chosen genes; zero for a gene that never varies."""
    values = log1p_cp10k[:, genes].toarray().astype(np.float64)
    values -= values.mean(axis=0)
    norm = np.sqrt((values**2).sum(axis=0))
    values /= np.where(norm > 0, norm, 1.0)
    return values.T @ values


def gene_gene_agreement(system: csr_matrix, reference: csr_matrix, genes: Int[np.ndarray, " chosen"]) -> float:
    """Compute how well two sets of cells agree on which genes go together.

    Pearson's correlation between the off-diagonal entries of their two gene-gene correlation matrices.

    Parameters
    ----------
    system, reference
        log1p CP10K, cells x genes.
    genes
        Positions of the genes to correlate.
    """
    upper = np.triu_indices(len(genes), k=1)
    return pearson(gene_correlations(system, genes)[upper], gene_correlations(reference, genes)[upper])

"""Which genes mark a label: fold changes of its cells against all others, on both sides of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.labels import MIN_CELLS_PER_LABEL
from scldm.evaluation.moments import weighted_sums

__all__ = [
    "MIN_SYSTEM_CELLS",
    "N_MARKERS",
    "detected_genes",
    "fold_changes",
    "frequent_labels",
    "shared_markers",
    "top_genes",
]

N_MARKERS = 20
# With fewer cells of a label a system has missed it.
MIN_SYSTEM_CELLS = 5
# As in Seurat's FindMarkers (min.pct): a gene that hardly any cell of a label shows is no marker, only noise.
MIN_DETECTED = 0.1


def frequent_labels(labels: np.ndarray, min_cells: int = MIN_CELLS_PER_LABEL) -> list[str]:
    """List the labels that have enough cells, in alphabetical order; None is no label."""
    names, counts = np.unique(labels[labels != None].astype(str), return_counts=True)  # noqa: E711
    return [str(name) for name in names[counts >= min_cells]]


def detected_genes(counts: csr_matrix, labels: np.ndarray, chosen: Sequence[str]) -> Int[np.ndarray, " detected"]:
    """Find the genes with a count in at least 10 % of the cells of any of the chosen labels."""
    detected: Bool[np.ndarray, " genes"] = np.zeros(counts.shape[1], dtype=bool)
    for label in chosen:
        cells = counts[np.flatnonzero(labels == label)]
        n_positive = np.bincount(cells.indices[cells.data > 0], minlength=counts.shape[1])
        detected |= n_positive >= max(MIN_DETECTED * cells.shape[0], 1.0)
    return np.flatnonzero(detected)


def fold_changes(
    log1p_cp10k: csr_matrix, labels: np.ndarray, chosen: Sequence[str], weights: Float[np.ndarray, "resamples cells"]
) -> list[Float[np.ndarray, "resamples+1 genes"]]:
    """Compute log fold changes of every gene: mean log1p CP10K of a label's cells minus that of all other cells.

    Parameters
    ----------
    log1p_cp10k
        Of some cells, cells x genes.
    labels
        Label of every cell; cells without one (None) count for nothing.
    chosen
        For which labels.
    weights
        How often every cell is in every resample.

    Returns
    -------
    For every chosen label one row for the cells as they are (row 0) and one for every resample.
    """
    known = np.flatnonzero(np.array([label is not None for label in labels], dtype=bool))
    sums, sizes = {}, {}
    for label in dict.fromkeys(labels[known]):
        cells = np.flatnonzero(labels == label)
        sums[label] = weighted_sums(log1p_cp10k[cells], weights[:, cells])
        sizes[label] = np.append(len(cells), weights[:, cells].sum(axis=1, dtype=np.float64))[:, None]
    total, n_cells = sum(sums.values()), sum(sizes.values())
    return [
        sums[label] / np.maximum(sizes[label], 1.0) - (total - sums[label]) / np.maximum(n_cells - sizes[label], 1.0)
        for label in chosen
    ]


def top_genes(changes: Float[np.ndarray, "rows genes"], n_markers: int = N_MARKERS) -> Bool[np.ndarray, "rows genes"]:
    """Mark in every row the genes with the largest fold changes; all genes when there are no more."""
    chosen = np.zeros(changes.shape, dtype=bool)
    n_markers = min(n_markers, changes.shape[1])
    top = np.argpartition(-changes, n_markers - 1, axis=1)[:, :n_markers]
    np.put_along_axis(chosen, top, True, axis=1)
    return chosen


def shared_markers(
    system: Float[np.ndarray, "rows genes"], reference: Float[np.ndarray, "rows genes"]
) -> Float[np.ndarray, " rows"]:
    """Compute the share of the reference's markers of a label that are markers in the system too."""
    top = top_genes(reference)
    return (top & top_genes(system)).sum(axis=1) / top.sum(axis=1)

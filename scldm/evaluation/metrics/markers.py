"""Metrics of markers: which genes tell a label's cells from all others, on both sides of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.bootstrap import Estimate, Rows
from scldm.evaluation.compare import Comparison
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, MIN_SYSTEM_CELLS, frequent_labels, known_labels
from scldm.evaluation.metrics.moments import weighted_sums
from scldm.evaluation.metrics.pearson import pearson_rows
from scldm.evaluation.metrics.registry import Limit, lost, metric

__all__ = ["N_MARKERS", "detected_genes", "fold_changes", "shared_markers", "top_genes"]

N_MARKERS = 20
# As in Seurat's FindMarkers (min.pct): a gene that hardly any cell of a label shows is no marker, only noise.
MIN_DETECTED = 0.1


@metric(
    "marker_fold_change_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation over genes of log fold changes (mean log1p CP10K of a label's cells minus that of "
    f"all others), averaged over labels with at least {MIN_CELLS_PER_LABEL} reference cells (0 for one of which the "
    f"system has fewer than {MIN_SYSTEM_CELLS}); over genes that {MIN_DETECTED:.0%} of the fitting cells of one of "
    "these labels show.",
    scope="condition",
    limits=Limit(
        "genes",
        lost(0.10, 0.50),
        "Markers of {condition} are not recovered: fold changes correlate with the real ones at {value:.2f} (real "
        "cells: {ceiling:.2f}).",
        "fold changes",
        least_ceiling=0.5,  # below, the fold changes of real cells are mostly sampling noise
    ),
)
def _marker_fold_change_correlation(c: Comparison, condition: str) -> Estimate | None:
    found = c.once(f"markers, {condition}", lambda: _recover_markers(c, condition))
    return None if found is None else Estimate.of(found[0])


@metric(
    "marker_overlap",
    group="genes",
    direction="higher",
    description=f"Share of the {N_MARKERS} genes with the largest log fold change of a label in the reference that are "
    f"among the {N_MARKERS} of the system, averaged over labels as in marker_fold_change_correlation.",
    scope="condition",
)
def _marker_overlap(c: Comparison, condition: str) -> Estimate | None:
    found = c.once(f"markers, {condition}", lambda: _recover_markers(c, condition))
    return None if found is None else Estimate.of(found[1])


def _recover_markers(c: Comparison, condition: str) -> tuple[Rows, Rows] | None:
    """Compute correlation of fold changes and overlap of markers, averaged over labels."""
    system, reference, fitting = (side.labels(condition) for side in (c.system, c.reference, c.fitted.fitting))
    if system is None or reference is None or fitting is None:
        return None
    labels = frequent_labels(reference)
    genes = detected_genes(c.fitted.fitting.cells.counts, fitting, labels)
    # with a single label there is nothing that a fold change could be against
    if not labels or len(genes) < 2 or len(frequent_labels(reference, 1)) < 2:
        return None
    met = [label for label in labels if label in frequent_labels(system, MIN_SYSTEM_CELLS)]
    if not met or len(frequent_labels(system, 1)) < 2:
        return np.zeros(1 + len(c.reference.weights)), np.zeros(1 + len(c.reference.weights))
    changes = [
        fold_changes(side.cells.log1p_cp10k[:, genes], column, met, side.weights)
        for side, column in ((c.system, system), (c.reference, reference))
    ]
    correlations = [pearson_rows(*both) for both in zip(*changes, strict=True)]
    overlaps = [shared_markers(*both) for both in zip(*changes, strict=True)]
    # a label that is not met counts as zero
    return np.sum(correlations, axis=0) / len(labels), np.sum(overlaps, axis=0) / len(labels)


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

    Cells without a label (None) count for nothing. For every chosen label there is one row for the cells as they are
    (row 0) and one for every resample.
    """
    known = np.flatnonzero(known_labels(labels))
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


def shared_markers(system: Float[np.ndarray, "rows genes"], reference: Float[np.ndarray, "rows genes"]) -> Rows:
    """Compute the share of the reference's markers of a label that are markers in the system too."""
    top = top_genes(reference)
    return (top & top_genes(system)).sum(axis=1) / top.sum(axis=1)

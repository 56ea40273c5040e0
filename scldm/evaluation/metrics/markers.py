"""Metrics of markers: which genes tell a label's cells from all others, on both sides of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.compare import Comparison, Masks, Rows
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, MIN_SYSTEM_CELLS, frequent_labels, known_labels
from scldm.evaluation.metrics.correlations import chosen_of
from scldm.evaluation.metrics.moments import sums_of
from scldm.evaluation.metrics.pearson import pearson_rows
from scldm.evaluation.metrics.registry import Limit, less, lost, metric, more

__all__ = ["N_MARKERS", "detected_genes", "fold_changes", "shared_markers", "slopes", "top_genes"]

N_MARKERS = 20
# As in Seurat's FindMarkers (min.pct): a gene that hardly any cell of a label shows is no marker, only noise.
MIN_DETECTED = 0.1


@metric(
    "marker_fold_change_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation over genes of log fold changes (mean log1p CP10K of a label's cells minus that of "
    f"all others), averaged over labels with at least {MIN_CELLS_PER_LABEL} expected cells (0 for one of which the "
    f"system has fewer than {MIN_SYSTEM_CELLS}); over genes that {MIN_DETECTED:.0%} of the fitting cells of one of "
    "these labels show.",
    values="-1 to 1",
    degenerate="A missed label counts 0; not computed with fewer than two labels.",
    scope="condition",
    limits=Limit(
        "genes",
        lost(0.10, 0.50),
        "Markers of {condition} are not recovered: fold changes correlate with the real ones at {value:.2f} (real "
        "cells: {ceiling:.2f}).",
        "fold changes",
        least_ceiling=0.5,  # below, the fold changes of real cells are mostly sampling noise
    ),
    max_permutations=39,
)
def _marker_fold_change_correlation(c: Comparison, condition: str) -> Rows | None:
    found = _recovered(c, condition)
    return None if found is None else found.correlation


@metric(
    "marker_fold_change_slope",
    group="genes",
    direction="closest to ceiling",
    description="Slope of the line through the origin of a label's log fold changes against those of the reference, "
    "over genes and labels as in marker_fold_change_correlation (0 for a label that is missed): below the ceiling, "
    "differences between labels are weaker than in real cells, above it they are exaggerated. The ceiling itself is "
    "below 1, since the reference has sampling noise.",
    values="any number; 1 where nothing is noisy",
    degenerate="A missed label counts 0; not computed with fewer than two labels.",
    scope="condition",
    limits=(
        Limit(
            "genes",
            less(0.10, 0.40),
            "Differential expression is attenuated: log fold changes between labels of {condition} have a slope of "
            "{value:.2f} against real ones (real cells: {ceiling:.2f}).",
            "slope of fold changes",
            least_ceiling=0.5,
        ),
        Limit(
            "genes",
            more(0.10, 0.40),
            "Differential expression is exaggerated: log fold changes between labels of {condition} have a slope of "
            "{value:.2f} against real ones (real cells: {ceiling:.2f}).",
            least_ceiling=0.5,
        ),
    ),
    max_permutations=39,
)
def _marker_fold_change_slope(c: Comparison, condition: str) -> Rows | None:
    found = _recovered(c, condition)
    return None if found is None else found.slope


@metric(
    "marker_overlap",
    group="genes",
    direction="higher",
    description=f"Share of the {N_MARKERS} genes with the largest log fold change of a label in the reference that are "
    f"among the {N_MARKERS} of the system, averaged over labels as in marker_fold_change_correlation.",
    values="0 to 1",
    degenerate="A missed label counts 0; 1 where there are no more than 20 genes.",
    scope="condition",
    max_permutations=39,
)
def _marker_overlap(c: Comparison, condition: str) -> Rows | None:
    found = _recovered(c, condition)
    return None if found is None else found.overlap


@dataclass(frozen=True, eq=False)
class Recovered:
    """How the fold changes and the markers of labels are recovered, a number for every draw."""

    correlation: Rows
    slope: Rows
    overlap: Rows


def _recovered(c: Comparison, condition: str) -> Recovered | None:
    return c.once(f"markers, {condition}", lambda: _recover_markers(c, condition))


def _recover_markers(c: Comparison, condition: str) -> Recovered | None:
    """Compare fold changes and markers label by label, and average over labels."""
    column, fitting, labels = c.pool.labels(condition), c.fitted.fitting.labels(condition), c.judged_labels(condition)
    if column is None or fitting is None or labels is None:
        return None
    genes = c.fitted.once(
        f"detected genes, {condition}, {labels}",
        lambda: detected_genes(c.fitted.fitting.cells.counts, fitting, labels),
    )
    # with a single label there is nothing that a fold change could be against
    if not labels or len(genes) < 2 or len(frequent_labels(fitting, 1)) < 2:
        return None
    values = c.pool.once(f"detected, {condition}", lambda: c.pool.cells.log1p_cp10k[:, genes])
    correlation, slope, overlap = (np.zeros(c.n_rows) for _ in range(3))
    both = (fold_changes(values, column, labels, chosen) for chosen in (c.system, c.reference))
    for label, system, reference in zip(labels, *both, strict=True):
        # a label that is not met counts as zero, as does one that has nothing beside it
        in_label = chosen_of(column == label, c.system)
        met = (in_label >= MIN_SYSTEM_CELLS) & (in_label < chosen_of(known_labels(column), c.system))
        correlation += met * pearson_rows(system, reference)
        slope += met * slopes(system, reference)
        overlap += met * shared_markers(system, reference)
    return Recovered(correlation / len(labels), slope / len(labels), overlap / len(labels))


def slopes(y: Float[np.ndarray, "rows values"], x: Float[np.ndarray, "rows values"]) -> Rows:
    """Compute for every row the slope of the least-squares line of y on x through the origin; zero where x is zero."""
    squares = np.einsum("rv,rv->r", x, x)
    return np.einsum("rv,rv->r", x, y) / np.where(squares > 0, squares, np.inf)


def detected_genes(counts: csr_matrix, labels: np.ndarray, chosen: Sequence[str]) -> Int[np.ndarray, " detected"]:
    """Find the genes with a count in at least 10 % of the cells of any of the chosen labels."""
    detected: Bool[np.ndarray, " genes"] = np.zeros(counts.shape[1], dtype=bool)
    for label in chosen:
        cells = counts[np.flatnonzero(labels == label)]
        n_positive = np.bincount(cells.indices[cells.data > 0], minlength=counts.shape[1])
        detected |= n_positive >= max(MIN_DETECTED * cells.shape[0], 1.0)
    return np.flatnonzero(detected)


def fold_changes(
    log1p_cp10k: csr_matrix, labels: np.ndarray, wanted: Sequence[str], chosen: Masks
) -> Iterator[Float[np.ndarray, "rows genes"]]:
    """Compute log fold changes of every gene: mean log1p CP10K of a label's cells minus that of all other cells.

    Over the chosen cells, a row for every draw; for one wanted label after the other. Cells without a label (None)
    count for nothing, and a label or a rest without cells has means of zero.
    """
    known = known_labels(labels)
    total = sums_of(log1p_cp10k[known], chosen[:, known])
    n_cells = chosen_of(known, chosen)[:, None]
    for label in wanted:
        cells = np.flatnonzero(labels == label)
        sums, size = sums_of(log1p_cp10k[cells], chosen[:, cells]), chosen[:, cells].sum(axis=1)[:, None]
        yield sums / np.maximum(size, 1) - (total - sums) / np.maximum(n_cells - size, 1)


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

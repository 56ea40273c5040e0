"""Figures of merit of genes: means, variances, zeros, dispersions, what goes together, and what marks a label."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.genes import N_CORRELATED_GENES, gene_means, pair_correlations, pearson_rows
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL
from scldm.evaluation.markers import (
    MIN_DETECTED,
    MIN_SYSTEM_CELLS,
    N_MARKERS,
    detected_genes,
    fold_changes,
    frequent_labels,
    shared_markers,
)
from scldm.evaluation.moments import GeneMoments, dispersion_trend_error, zero_curve_error
from scldm.evaluation.registry import Comparison, Judge, Side, figure
from scldm.evaluation.resampling import Estimate

__all__: list[str] = []

# Counts per fitting cell: a little below the lower end of the curve of zeros; and what a dispersion needs, since with
# fewer counts it is mostly noise at a few hundred cells.
MIN_COUNTS_FOR_ZEROS = 0.02
MIN_COUNTS_FOR_DISPERSION = 0.25
MIN_GENES_FOR_DISPERSION = 20
N_DISPERSION_BINS = 10

# One statistic: for the cells as they are, then for every resample.
Rows = Float[np.ndarray, " rows"]

# The moments of a side are large (resamples x genes): only those of references are kept, of as many as there are
# splits. What is kept of a comparison is small.
_MAX_REFERENCES = 5
_reference_moments: WeakKeyDictionary[Side, GeneMoments] = WeakKeyDictionary()
_profiles: WeakKeyDictionary[Comparison, dict[str, Rows | None]] = WeakKeyDictionary()
_markers: WeakKeyDictionary[Comparison, dict[str, tuple[Rows, Rows] | None]] = WeakKeyDictionary()


@figure("gene_mean_correlation", "genes", "higher", "Pearson correlation over genes of mean log1p CP10K.")
def _gene_mean_correlation(c: Comparison) -> Estimate | None:
    return _profile(c, "gene_mean_correlation")


@figure("gene_mean_mae", "genes", "lower", "Mean absolute difference over genes of mean log1p CP10K.")
def _gene_mean_mae(c: Comparison) -> Estimate | None:
    return _profile(c, "gene_mean_mae")


@figure(
    "gene_variance_correlation",
    "genes",
    "higher",
    "Pearson correlation of log10 variance of log1p CP10K, over genes that vary on both sides.",
)
def _gene_variance_correlation(c: Comparison) -> Estimate | None:
    return _profile(c, "gene_variance_correlation")


@figure(
    "zero_fraction_mae", "genes", "lower", "Mean absolute difference over genes of the share of cells without a count."
)
def _zero_fraction_mae(c: Comparison) -> Estimate | None:
    return _profile(c, "zero_fraction_mae")


@figure(
    "zero_fraction_curve",
    "genes",
    "lower",
    "Difference of the curves of zeros against abundance: mean over bins of mean UMI counts (0.03 to 30, four per "
    "factor of ten) of the absolute difference between the median shares of cells without a count.",
)
def _zero_fraction_curve(c: Comparison) -> Estimate | None:
    return _profile(c, "zero_fraction_curve")


@figure(
    "dispersion_trend",
    "genes",
    "lower",
    "Difference of the trends of overdispersion against abundance: mean over bins of equally many genes of the "
    "absolute difference between median log10 dispersions (negative binomial given depth, method of moments; genes "
    f"with {MIN_COUNTS_FOR_DISPERSION} UMI counts per fitting cell or more).",
)
def _dispersion_trend(c: Comparison) -> Estimate | None:
    return _profile(c, "dispersion_trend")


@figure(
    "dispersion_correlation",
    "genes",
    "higher",
    "Pearson correlation of log10 dispersions over the genes of dispersion_trend.",
)
def _dispersion_correlation(c: Comparison) -> Estimate | None:
    return _profile(c, "dispersion_correlation")


@figure(
    "gene_gene_correlation",
    "genes",
    "higher",
    "Pearson correlation between the off-diagonal entries of both sides' gene-gene correlation matrices (log1p CP10K, "
    f"the {N_CORRELATED_GENES} genes with the highest mean in the fitting cells).",
)
def _gene_gene_correlation(c: Comparison) -> Estimate | None:
    rows = [_pairs(side, c.judge.correlated_genes) for side in (c.system, c.reference)]
    return _estimate(pearson_rows(*rows))


@figure(
    "gene_gene_correlation_within",
    "genes",
    "higher",
    "As gene_gene_correlation, but within labels of the first condition: of deviations from the mean of the label, "
    f"over labels with at least {MIN_CELLS_PER_LABEL} reference cells. Those of which the system has fewer than "
    f"{MIN_SYSTEM_CELLS} cells are left out, and the correlation is multiplied by the share of reference cells left.",
)
def _gene_gene_correlation_within(c: Comparison) -> Estimate | None:
    if not len(c.reference.cells.labels.columns):
        return None
    condition = c.reference.cells.labels.columns[0]
    if condition not in c.system.cells.labels:
        return None
    columns = [side.cells.labels[condition].to_numpy(dtype=object) for side in (c.system, c.reference)]
    judged = frequent_labels(columns[1])
    if not judged:
        return None
    labels = [label for label in judged if label in frequent_labels(columns[0], MIN_SYSTEM_CELLS)]
    if not labels:
        return _estimate(np.zeros(1 + len(c.reference.weights)))
    rows = []
    for side, column in zip((c.system, c.reference), columns, strict=True):
        groups = np.array([labels.index(label) if label in labels else -1 for label in column])
        chosen = np.flatnonzero(groups >= 0)
        rows.append(_pairs(side.take(chosen), c.judge.correlated_genes, groups[chosen]))
    left = np.isin(columns[1], labels).sum() / np.isin(columns[1], judged).sum()
    return _estimate(left * pearson_rows(*rows))


@figure(
    "marker_fold_change_correlation",
    "genes",
    "higher",
    "Pearson correlation over genes of log fold changes (mean log1p CP10K of a label's cells minus that of all "
    f"others), averaged over labels with at least {MIN_CELLS_PER_LABEL} reference cells (0 for one of which the system "
    f"has fewer than {MIN_SYSTEM_CELLS}); over genes that {MIN_DETECTED:.0%} of the fitting cells of one of these "
    "labels show.",
    scope="condition",
)
def _marker_fold_change_correlation(c: Comparison, condition: str) -> Estimate | None:
    found = _marker_recovery(c, condition)
    return None if found is None else _estimate(found[0])


@figure(
    "marker_overlap",
    "genes",
    "higher",
    f"Share of the {N_MARKERS} genes with the largest log fold change of a label in the reference that are among the "
    f"{N_MARKERS} of the system, averaged over labels as in marker_fold_change_correlation.",
    scope="condition",
)
def _marker_overlap(c: Comparison, condition: str) -> Estimate | None:
    found = _marker_recovery(c, condition)
    return None if found is None else _estimate(found[1])


def _profile(c: Comparison, name: str) -> Estimate | None:
    """Look up one of the figures that are computed together from the moments of both sides."""
    if c not in _profiles:
        expressed, n_abundant = _expressed_genes(c.judge)
        if c.reference not in _reference_moments:
            if len(_reference_moments) >= _MAX_REFERENCES:
                _reference_moments.clear()
            _reference_moments[c.reference] = _moments(c.reference, expressed)
        _profiles[c] = _compare(_moments(c.system, expressed), _reference_moments[c.reference], n_abundant)
    return _estimate(_profiles[c][name])


def _moments(side: Side, expressed: Int[np.ndarray, " expressed"]) -> GeneMoments:
    """Compute the moments of a side's genes."""
    return GeneMoments.compute(side.cells.counts, side.cells.log1p_cp10k, side.weights, expressed)


def _expressed_genes(judge: Judge) -> tuple[Int[np.ndarray, " expressed"], int]:
    """Find the expressed genes, least abundant in the fitting cells first, and how many suffice for a dispersion."""
    mean_counts = gene_means(judge.fitting.cells.counts)
    expressed = np.argsort(mean_counts, kind="stable")[np.count_nonzero(mean_counts < MIN_COUNTS_FOR_ZEROS) :]
    return expressed, int(np.count_nonzero(mean_counts >= MIN_COUNTS_FOR_DISPERSION))


def _compare(system: GeneMoments, reference: GeneMoments, n_abundant: int) -> dict[str, Rows | None]:
    """Compute the figures that need nothing but the moments of both sides."""
    varying = (system.variances > 0) & (reference.variances > 0)
    spread, expected_spread = (np.log10(np.where(varying, side.variances, 1.0)) for side in (system, reference))
    enough = n_abundant >= MIN_GENES_FOR_DISPERSION
    abundant = np.arange(len(system.expressed) - n_abundant, len(system.expressed))
    dispersions = [side.log_dispersions(abundant) for side in (system, reference)]
    return {
        "gene_mean_correlation": pearson_rows(system.means, reference.means),
        "gene_mean_mae": np.abs(system.means - reference.means).mean(axis=1, dtype=np.float64),
        "gene_variance_correlation": pearson_rows(spread, expected_spread, among=varying),
        "zero_fraction_mae": np.abs(system.zero_fractions - reference.zero_fractions).mean(axis=1, dtype=np.float64),
        "zero_fraction_curve": zero_curve_error(system, reference),
        "dispersion_trend": dispersion_trend_error(system, reference, abundant, N_DISPERSION_BINS) if enough else None,
        "dispersion_correlation": pearson_rows(*dispersions) if enough else None,
    }


def _pairs(
    side: Side, genes: Int[np.ndarray, " chosen"], groups: Int[np.ndarray, " cells"] | None = None
) -> Float[np.ndarray, "rows pairs"]:
    """Compute gene-gene correlations of a side, for the cells as they are and for every resample."""
    values = side.cells.log1p_cp10k[:, genes].toarray()
    return pair_correlations(values, np.vstack([np.ones(len(side.cells)), side.weights]), groups)


def _marker_recovery(c: Comparison, condition: str) -> tuple[Rows, Rows] | None:
    """Compute correlation of fold changes and overlap of markers, averaged over labels; once per condition."""
    known = _markers.setdefault(c, {})
    if condition not in known:
        known[condition] = _recover_markers(c, condition)
    return known[condition]


def _recover_markers(c: Comparison, condition: str) -> tuple[Rows, Rows] | None:
    """Compute what `_marker_recovery` keeps."""
    if any(condition not in side.cells.labels for side in (c.system, c.reference, c.judge.fitting)):
        return None
    columns = [side.cells.labels[condition].to_numpy(dtype=object) for side in (c.system, c.reference)]
    labels = frequent_labels(columns[1])
    fitting = c.judge.fitting.cells
    genes = detected_genes(fitting.counts, fitting.labels[condition].to_numpy(dtype=object), labels)
    # with a single label there is nothing that a fold change could be against
    n_labels = [len(frequent_labels(column, 1)) for column in columns]
    if not labels or len(genes) < 2 or n_labels[1] < 2:
        return None
    met = [label for label in labels if label in frequent_labels(columns[0], MIN_SYSTEM_CELLS)]
    if not met or n_labels[0] < 2:
        return np.zeros(1 + len(c.reference.weights)), np.zeros(1 + len(c.reference.weights))
    changes = [
        fold_changes(side.cells.log1p_cp10k[:, genes], column, met, side.weights)
        for side, column in zip((c.system, c.reference), columns, strict=True)
    ]
    correlations = [pearson_rows(system, reference) for system, reference in zip(*changes, strict=True)]
    overlaps = [shared_markers(system, reference) for system, reference in zip(*changes, strict=True)]
    # a label that is not met counts as zero
    return np.sum(correlations, axis=0) / len(labels), np.sum(overlaps, axis=0) / len(labels)


def _estimate(rows: Rows | None) -> Estimate | None:
    """Take row 0 as the value, the others as its replicates."""
    return None if rows is None else Estimate(float(rows[0]), np.asarray(rows[1:], dtype=np.float64))

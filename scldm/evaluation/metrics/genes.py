"""Metrics of genes one by one: means, variances, zeros and dispersions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.cells import gene_means
from scldm.evaluation.compare import Comparison, Masks, Rows
from scldm.evaluation.metrics.moments import GeneMoments, dispersion_trend_error, zero_curve_error
from scldm.evaluation.metrics.pearson import pearson_rows
from scldm.evaluation.metrics.registry import Limit, metric, more, times

__all__: list[str] = []

# Counts per fitting cell: a little below the lower end of the curve of zeros; and what a dispersion needs, since with
# fewer counts it is mostly noise at a few hundred cells.
MIN_COUNTS_FOR_ZEROS = 0.02
MIN_COUNTS_FOR_DISPERSION = 0.25
MIN_GENES_FOR_DISPERSION = 20
N_DISPERSION_BINS = 10
# All genes of a genome in thousands of draws take minutes.
MAX_PERMUTATIONS = 39


@metric(
    "gene_mean_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation over genes of mean log1p CP10K.",
    values="-1 to 1",
    degenerate="0 where a side is constant; close to 1 for almost any generator, since genes differ by orders of "
    "magnitude.",
    max_permutations=MAX_PERMUTATIONS,
)
def _gene_mean_correlation(c: Comparison) -> Rows | None:
    system, reference = _both_moments(c)
    return pearson_rows(system.means, reference.means)


@metric(
    "gene_mean_mae",
    group="genes",
    direction="lower",
    display_name="Gene mean MAE",
    description="Mean absolute difference over genes of mean log1p CP10K.",
    values="0 or more, in log1p CP10K",
    degenerate="0 only for equal means.",
    limits=Limit(
        "genes",
        times(1.5, 3.0),
        "Mean expression of genes is off by {value:.2g} log1p CP10K, {loss:.1f} times as much as between real cells.",
        "error of means",
    ),
    max_permutations=MAX_PERMUTATIONS,
)
def _gene_mean_mae(c: Comparison) -> Rows | None:
    system, reference = _both_moments(c)
    return np.abs(system.means - reference.means).mean(axis=1, dtype=np.float64)


@metric(
    "gene_variance_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation of log10 variance of log1p CP10K, over genes that vary on both sides.",
    values="-1 to 1",
    degenerate="Genes that do not vary on a side are left out; 0 without any.",
    max_permutations=MAX_PERMUTATIONS,
)
def _gene_variance_correlation(c: Comparison) -> Rows | None:
    system, reference = _both_moments(c)
    varying = (system.variances > 0) & (reference.variances > 0)
    own, expected = (np.log10(np.where(varying, side.variances, 1.0)) for side in (system, reference))
    return pearson_rows(own, expected, among=varying)


@metric(
    "zero_fraction_mae",
    group="genes",
    direction="lower",
    display_name="Zero fraction MAE",
    description="Mean absolute difference over genes of the share of cells without a count.",
    values="0 to 1",
    degenerate="0 only for equal shares of zeros.",
    limits=Limit(
        "zeros",
        times(1.5, 3.0),
        "The shares of zeros of genes are off by {value:.2g}, {loss:.1f} times as much as between real cells.",
        "error of zero shares",
    ),
    max_permutations=MAX_PERMUTATIONS,
)
def _zero_fraction_mae(c: Comparison) -> Rows | None:
    system, reference = _both_moments(c)
    return np.abs(system.zero_fractions - reference.zero_fractions).mean(axis=1, dtype=np.float64)


@metric(
    "zero_fraction_curve",
    group="genes",
    direction="lower",
    description="Difference of the curves of zeros against abundance: mean over bins of mean UMI counts (0.03 to 30, "
    "four per factor of ten) of the absolute difference between the median shares of cells without a count.",
    values="0 to 1",
    degenerate="Not computed where no bin has five genes on both sides.",
    limits=Limit(
        "zeros",
        more(0.02, 0.10),
        "Genes have too many or too few zeros for their mean: the curve is off by {value:.2g} (real cells: "
        "{ceiling:.2g}).",
    ),
    max_permutations=MAX_PERMUTATIONS,
)
def _zero_fraction_curve(c: Comparison) -> Rows | None:
    return zero_curve_error(*_both_moments(c))


@metric(
    "dispersion_trend",
    group="genes",
    direction="lower",
    description="Difference of the trends of overdispersion against abundance: mean over bins of equally many genes of "
    "the absolute difference between median log10 dispersions (negative binomial given depth, method of moments; genes "
    f"with {MIN_COUNTS_FOR_DISPERSION} UMI counts per fitting cell or more).",
    values="0 or more, in log10 units",
    degenerate="Not computed with fewer than 20 abundant genes; dispersions below 0.01 count as 0.01.",
    limits=Limit(
        "genes",
        more(0.10, 0.30),
        "Counts vary around their mean too much or too little: dispersions are off by {value:.2f} in log10 (real "
        "cells: {ceiling:.2f}).",
    ),
    max_permutations=MAX_PERMUTATIONS,
)
def _dispersion_trend(c: Comparison) -> Rows | None:
    abundant = _abundant(c)
    if abundant is None:
        return None
    return dispersion_trend_error(*_both_moments(c), abundant, N_DISPERSION_BINS)


@metric(
    "dispersion_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation of log10 dispersions over the genes of dispersion_trend.",
    values="-1 to 1",
    degenerate="Not computed with fewer than 20 abundant genes; 0 where a side is constant.",
    max_permutations=MAX_PERMUTATIONS,
)
def _dispersion_correlation(c: Comparison) -> Rows | None:
    abundant = _abundant(c)
    if abundant is None:
        return None
    return pearson_rows(*(side.log_dispersions(abundant) for side in _both_moments(c)))


def _mean_counts(c: Comparison) -> Float[np.ndarray, " genes"]:
    """Compute the mean UMI count of every gene in the fitting cells, once."""
    fitting = c.fitted.fitting
    return fitting.once("mean counts", lambda: gene_means(fitting.cells.counts))


def _both_moments(c: Comparison) -> tuple[GeneMoments, GeneMoments]:
    """Compute the moments of the genes of the system and of the reference, once; least abundant expressed ones first.

    They are large (draws x genes): they are kept for as long as these draws are compared, not with the pool.
    """
    mean_counts, cells = _mean_counts(c), c.pool.cells
    expressed = np.argsort(mean_counts, kind="stable")[np.count_nonzero(mean_counts < MIN_COUNTS_FOR_ZEROS) :]

    def moments(chosen: Masks) -> GeneMoments:
        return GeneMoments.compute(cells.counts, cells.log1p_cp10k, chosen, expressed)

    return c.once("moments of the system", lambda: moments(c.system)), c.once(
        "moments of the reference", lambda: moments(c.reference)
    )


def _abundant(c: Comparison) -> Int[np.ndarray, " abundant"] | None:
    """Find, among the expressed genes, those that are abundant enough for a dispersion; None if they are too few."""
    least = (MIN_COUNTS_FOR_ZEROS, MIN_COUNTS_FOR_DISPERSION)
    n_expressed, n_abundant = (np.count_nonzero(_mean_counts(c) >= count) for count in least)
    return np.arange(n_expressed - n_abundant, n_expressed) if n_abundant >= MIN_GENES_FOR_DISPERSION else None

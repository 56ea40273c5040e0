"""Metrics of genes one by one: means, variances, zeros and dispersions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.bootstrap import Estimate
from scldm.evaluation.cells import gene_means
from scldm.evaluation.compare import Comparison, Side
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


@metric(
    "gene_mean_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation over genes of mean log1p CP10K.",
)
def _gene_mean_correlation(c: Comparison) -> Estimate | None:
    system, reference = _both_moments(c)
    return Estimate.of(pearson_rows(system.means, reference.means))


@metric(
    "gene_mean_mae",
    group="genes",
    direction="lower",
    display_name="Gene mean MAE",
    description="Mean absolute difference over genes of mean log1p CP10K.",
    limits=Limit(
        "genes",
        times(1.5, 3.0),
        "Mean expression of genes is off by {value:.2g} log1p CP10K, {loss:.1f} times as much as between real cells.",
        "error of means",
    ),
)
def _gene_mean_mae(c: Comparison) -> Estimate | None:
    system, reference = _both_moments(c)
    return Estimate.of(np.abs(system.means - reference.means).mean(axis=1, dtype=np.float64))


@metric(
    "gene_variance_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation of log10 variance of log1p CP10K, over genes that vary on both sides.",
)
def _gene_variance_correlation(c: Comparison) -> Estimate | None:
    system, reference = _both_moments(c)
    varying = (system.variances > 0) & (reference.variances > 0)
    own, expected = (np.log10(np.where(varying, side.variances, 1.0)) for side in (system, reference))
    return Estimate.of(pearson_rows(own, expected, among=varying))


@metric(
    "zero_fraction_mae",
    group="genes",
    direction="lower",
    display_name="Zero fraction MAE",
    description="Mean absolute difference over genes of the share of cells without a count.",
    limits=Limit(
        "zeros",
        times(1.5, 3.0),
        "The shares of zeros of genes are off by {value:.2g}, {loss:.1f} times as much as between real cells.",
        "error of zero shares",
    ),
)
def _zero_fraction_mae(c: Comparison) -> Estimate | None:
    system, reference = _both_moments(c)
    return Estimate.of(np.abs(system.zero_fractions - reference.zero_fractions).mean(axis=1, dtype=np.float64))


@metric(
    "zero_fraction_curve",
    group="genes",
    direction="lower",
    description="Difference of the curves of zeros against abundance: mean over bins of mean UMI counts (0.03 to 30, "
    "four per factor of ten) of the absolute difference between the median shares of cells without a count.",
    limits=Limit(
        "zeros",
        more(0.02, 0.10),
        "Genes have too many or too few zeros for their mean: the curve is off by {value:.2g} (real cells: "
        "{ceiling:.2g}).",
    ),
)
def _zero_fraction_curve(c: Comparison) -> Estimate | None:
    return Estimate.of(zero_curve_error(*_both_moments(c)))


@metric(
    "dispersion_trend",
    group="genes",
    direction="lower",
    description="Difference of the trends of overdispersion against abundance: mean over bins of equally many genes of "
    "the absolute difference between median log10 dispersions (negative binomial given depth, method of moments; genes "
    f"with {MIN_COUNTS_FOR_DISPERSION} UMI counts per fitting cell or more).",
    limits=Limit(
        "genes",
        more(0.10, 0.30),
        "Counts vary around their mean too much or too little: dispersions are off by {value:.2f} in log10 (real "
        "cells: {ceiling:.2f}).",
    ),
)
def _dispersion_trend(c: Comparison) -> Estimate | None:
    abundant = _abundant(c)
    if abundant is None:
        return None
    return Estimate.of(dispersion_trend_error(*_both_moments(c), abundant, N_DISPERSION_BINS))


@metric(
    "dispersion_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation of log10 dispersions over the genes of dispersion_trend.",
)
def _dispersion_correlation(c: Comparison) -> Estimate | None:
    abundant = _abundant(c)
    if abundant is None:
        return None
    return Estimate.of(pearson_rows(*(side.log_dispersions(abundant) for side in _both_moments(c))))


def _mean_counts(c: Comparison) -> Float[np.ndarray, " genes"]:
    """Compute the mean UMI count of every gene in the fitting cells, once."""
    fitting = c.fitted.fitting
    return fitting.once("mean counts", lambda: gene_means(fitting.cells.counts))


def _both_moments(c: Comparison) -> tuple[GeneMoments, GeneMoments]:
    """Compute the moments of the genes of the system and of the reference, once; least abundant expressed ones first.

    They are large (resamples x genes): those of a system are kept for as long as it is compared, not with its cells.
    """

    def moments(side: Side) -> GeneMoments:
        mean_counts = _mean_counts(c)
        expressed = np.argsort(mean_counts, kind="stable")[np.count_nonzero(mean_counts < MIN_COUNTS_FOR_ZEROS) :]
        return GeneMoments.compute(side.cells.counts, side.cells.log1p_cp10k, side.weights, expressed)

    reference = c.reference.once("moments", lambda: moments(c.reference))
    return c.once("moments", lambda: moments(c.system)), reference


def _abundant(c: Comparison) -> Int[np.ndarray, " abundant"] | None:
    """Find, among the expressed genes, those that are abundant enough for a dispersion; None if they are too few."""
    least = (MIN_COUNTS_FOR_ZEROS, MIN_COUNTS_FOR_DISPERSION)
    n_expressed, n_abundant = (np.count_nonzero(_mean_counts(c) >= count) for count in least)
    return np.arange(n_expressed - n_abundant, n_expressed) if n_abundant >= MIN_GENES_FOR_DISPERSION else None

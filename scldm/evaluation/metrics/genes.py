"""Metrics of genes one by one: means, variances, zeros and dispersions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from scldm.evaluation.bootstrap import Estimate
from scldm.evaluation.cells import gene_means
from scldm.evaluation.compare import Comparison, Side
from scldm.evaluation.metrics.arrays import Rows
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
    return _from_moments(c, "gene_mean_correlation")


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
    return _from_moments(c, "gene_mean_mae")


@metric(
    "gene_variance_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation of log10 variance of log1p CP10K, over genes that vary on both sides.",
)
def _gene_variance_correlation(c: Comparison) -> Estimate | None:
    return _from_moments(c, "gene_variance_correlation")


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
    return _from_moments(c, "zero_fraction_mae")


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
    return _from_moments(c, "zero_fraction_curve")


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
    return _from_moments(c, "dispersion_trend")


@metric(
    "dispersion_correlation",
    group="genes",
    direction="higher",
    description="Pearson correlation of log10 dispersions over the genes of dispersion_trend.",
)
def _dispersion_correlation(c: Comparison) -> Estimate | None:
    return _from_moments(c, "dispersion_correlation")


def _from_moments(c: Comparison, name: str) -> Estimate | None:
    """Look up one of the metrics that are computed together, once, from the moments of both sides."""
    return Estimate.of(c.once("moments", lambda: _compare_moments(c))[name])


def _compare_moments(c: Comparison) -> dict[str, Rows | None]:
    """Compute the metrics that need nothing but the moments of both sides."""
    expressed, n_abundant = _expressed_genes(c.fitted.fitting)
    # moments are large (resamples x genes): of both sides, only those of the reference are needed again
    reference = c.reference.once("moments", lambda: _moments(c.reference, expressed))
    system = _moments(c.system, expressed)
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


def _moments(side: Side, expressed: Int[np.ndarray, " expressed"]) -> GeneMoments:
    """Compute the moments of a side's genes."""
    return GeneMoments.compute(side.cells.counts, side.cells.log1p_cp10k, side.weights, expressed)


def _expressed_genes(fitting: Side) -> tuple[Int[np.ndarray, " expressed"], int]:
    """Find the expressed genes, least abundant in the fitting cells first, and how many suffice for a dispersion."""
    mean_counts = gene_means(fitting.cells.counts)
    expressed = np.argsort(mean_counts, kind="stable")[np.count_nonzero(mean_counts < MIN_COUNTS_FOR_ZEROS) :]
    return expressed, int(np.count_nonzero(mean_counts >= MIN_COUNTS_FOR_DISPERSION))

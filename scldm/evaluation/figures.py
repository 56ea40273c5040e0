"""The figures of merit that `evaluate` reports, each a function of one comparison."""

from __future__ import annotations

import numpy as np

from scldm.evaluation import distances
from scldm.evaluation.genes import N_CORRELATED_GENES, gene_gene_agreement, mean_absolute_error, pearson
from scldm.evaluation.registry import Comparison, figure

__all__: list[str] = []


@figure(
    "wasserstein2",
    "lower",
    "2-Wasserstein distance in the feature space: square root of the exact optimal transport cost (squared Euclidean).",
)
def _wasserstein2(c: Comparison) -> float:
    return distances.wasserstein2(c.system_features, c.reference_features)


@figure(
    "mmd2",
    "lower",
    "Squared maximum mean discrepancy in the feature space, unbiased, Gaussian kernel exp(-d^2 / m) with m the median "
    "squared distance between reference cells.",
)
def _mmd2(c: Comparison) -> float:
    bandwidth = distances.median_bandwidth(c.reference_features)
    return distances.mmd2(c.system_features, c.reference_features, [bandwidth])


@figure(
    "mmd2_published",
    "lower",
    "Squared maximum mean discrepancy as in published comparisons: biased, sum of Gaussian kernels with standard "
    "deviations 1, 2, 4, 8 and 16 (depends on the scale of the data and the number of cells).",
)
def _mmd2_published(c: Comparison) -> float:
    return distances.mmd2(c.system_features, c.reference_features, distances.PUBLISHED_BANDWIDTHS, unbiased=False)


@figure(
    "frechet_distance",
    "lower",
    "Squared Frechet distance between Gaussians with the means and covariances of both sides in the feature space.",
)
def _frechet_distance(c: Comparison) -> float:
    return distances.frechet_distance(c.system_features, c.reference_features)


@figure(
    "nearest_neighbour_accuracy",
    "closest to ceiling",
    "Leave-one-out accuracy of a 1-nearest-neighbour classifier of system against reference in the feature space: "
    "0.5 cannot be told apart, 1 is always told apart, below 0.5 suggests copies.",
)
def _nearest_neighbour_accuracy(c: Comparison) -> float:
    return distances.nearest_neighbour_accuracy(c.system_features, c.reference_features)


@figure(
    "precision",
    "higher",
    f"Share of the system's cells inside the {distances.N_NEIGHBOURS}-nearest-neighbour manifold of the reference.",
)
def _precision(c: Comparison) -> float:
    return distances.precision_and_recall(c.reference_features, c.system_features)[0]


@figure(
    "recall",
    "higher",
    f"Share of reference cells inside the {distances.N_NEIGHBOURS}-nearest-neighbour manifold of the system's cells.",
)
def _recall(c: Comparison) -> float:
    return distances.precision_and_recall(c.reference_features, c.system_features)[1]


@figure("gene_mean_correlation", "higher", "Pearson correlation over genes of mean log1p CP10K.")
def _gene_mean_correlation(c: Comparison) -> float:
    return pearson(c.system.gene_means, c.reference.gene_means)


@figure("gene_mean_mae", "lower", "Mean absolute difference over genes of mean log1p CP10K.")
def _gene_mean_mae(c: Comparison) -> float:
    return mean_absolute_error(c.system.gene_means, c.reference.gene_means)


@figure("zero_fraction_mae", "lower", "Mean absolute difference over genes of the share of cells without a count.")
def _zero_fraction_mae(c: Comparison) -> float:
    return mean_absolute_error(c.system.zero_fractions, c.reference.zero_fractions)


@figure(
    "gene_gene_correlation",
    "higher",
    "Pearson correlation between the off-diagonal entries of both sides' gene-gene correlation matrices (log1p CP10K, "
    f"the {N_CORRELATED_GENES} genes with the highest mean in the fitting cells).",
)
def _gene_gene_correlation(c: Comparison) -> float:
    return gene_gene_agreement(c.system.log1p_cp10k, c.reference.log1p_cp10k, c.judge.correlated_genes)


@figure("depth_ratio", "closest to ceiling", "Median library size (UMI counts) divided by that of the reference.")
def _depth_ratio(c: Comparison) -> float:
    return float(np.median(c.system.library_size) / np.median(c.reference.library_size))


@figure(
    "label_agreement",
    "closest to ceiling",
    "Share of the system's cells that a logistic regression, trained on real cells in the feature space, recognises as "
    "what their label says; more than the ceiling means labels that are told apart too easily.",
    per_condition=True,
)
def _label_agreement(c: Comparison, condition: str) -> float | None:
    classifier = c.judge.classifiers.get(condition)
    if classifier is None or condition not in c.system.labels:
        return None
    return classifier.accuracy(c.system_features, c.system.labels[condition].to_numpy(dtype=object))

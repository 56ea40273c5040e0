"""Figures of merit that compare positions of cells: distances, two-sample tests, precision and recall."""

from __future__ import annotations

import numpy as np

from scldm.evaluation import distances, two_sample
from scldm.evaluation.distances import EXACT_TRANSPORT_CELLS
from scldm.evaluation.neighbours import N_NEIGHBOURS
from scldm.evaluation.preparation import stratified_choice
from scldm.evaluation.registry import Comparison, Side, figure
from scldm.evaluation.resampling import Estimate, weighted_mean

__all__: list[str] = []

NARROW = "Resamples keep the {}, so the interval is somewhat narrow."


@figure(
    "wasserstein2",
    "distances",
    "lower",
    "2-Wasserstein distance in the feature space: square root of the exact optimal transport cost (squared Euclidean); "
    f"beyond {EXACT_TRANSPORT_CELLS:,} cells on a side, of as many of them.",
    scope="space",
)
def _wasserstein2(c: Comparison, space: str) -> Estimate:
    system, reference = _at_most(c.system, EXACT_TRANSPORT_CELLS), _at_most(c.reference, EXACT_TRANSPORT_CELLS)
    potentials = distances.transport_potentials(system.features[space], reference.features[space])
    return distances.from_potentials(*potentials, system.weights, reference.weights)


def _at_most(side: Side, n_cells: int) -> Side:
    """Choose cells at random, with every label's share of them."""
    if len(side.cells) <= n_cells:
        return side
    return side.take(stratified_choice(side.cells.labels, n_cells, np.random.default_rng(0)))


@figure(
    "sliced_wasserstein2",
    "distances",
    "lower",
    f"Sliced 2-Wasserstein distance in the feature space: root mean square over {distances.N_PROJECTIONS} random "
    "directions of the distance between projections, times the root of the number of features; of all compared cells.",
    scope="space",
)
def _sliced_wasserstein2(c: Comparison, space: str) -> Estimate:
    potentials = distances.sliced_potentials(c.system.features[space], c.reference.features[space])
    return distances.from_potentials(*potentials, c.system.weights, c.reference.weights)


@figure(
    "mmd2",
    "distances",
    "lower",
    "Squared maximum mean discrepancy in the feature space, unbiased, mean of Gaussian kernels exp(-d^2 / (m f)) with "
    "f = 1/4, 1/2, 1, 2, 4 and m the median squared distance between reference cells.",
    scope="space",
)
def _mmd2(c: Comparison, space: str) -> Estimate:
    reference = c.reference.features[space]
    median = 2 * distances.median_bandwidth(reference) ** 2
    return distances.mmd2_estimate(c.system.features[space], reference, median, c.system.weights, c.reference.weights)


@figure(
    "frechet_distance",
    "distances",
    "lower",
    "Squared Frechet distance between Gaussians with the means and covariances of both sides in the feature space.",
    scope="space",
)
def _frechet_distance(c: Comparison, space: str) -> Estimate:
    system, reference = c.system.features[space], c.reference.features[space]
    return distances.frechet_estimate(system, reference, c.system.weights, c.reference.weights)


@figure(
    "nearest_neighbour_accuracy",
    "distances",
    "closest to ceiling",
    "Leave-one-out accuracy of a 1-nearest-neighbour classifier of system against reference in the feature space: "
    "0.5 cannot be told apart, 1 is always told apart, below 0.5 suggests copies. " + NARROW.format("neighbours"),
    scope="space",
)
def _nearest_neighbour_accuracy(c: Comparison, space: str) -> Estimate:
    votes = two_sample.nearest_neighbour_votes(c.neighbourhoods(space))
    return weighted_mean(np.concatenate(votes), np.concatenate([c.reference.weights, c.system.weights], axis=1))


@figure(
    "classifier_auroc",
    "distances",
    "closest to ceiling",
    "Area under the ROC curve of gradient-boosted trees trained to tell system from reference in the feature space, "
    f"scored on cells they have not seen ({two_sample.N_FOLDS} folds): 0.5 cannot be told apart. "
    + NARROW.format("trained trees"),
    scope="space",
)
def _classifier_auroc(c: Comparison, space: str) -> Estimate:
    scores = two_sample.out_of_fold_scores(c.reference.features[space], c.system.features[space])
    return two_sample.auroc(*scores, c.reference.weights, c.system.weights)


@figure(
    "precision",
    "distances",
    "higher",
    f"Share of the system's cells inside the {N_NEIGHBOURS}-nearest-neighbour manifold of the reference.",
    scope="space",
)
def _precision(c: Comparison, space: str) -> Estimate:
    return weighted_mean(two_sample.precision_indicators(c.neighbourhoods(space)), c.system.weights)


@figure(
    "recall",
    "distances",
    "higher",
    f"Share of reference cells inside the {N_NEIGHBOURS}-nearest-neighbour manifold of the system's cells.",
    scope="space",
)
def _recall(c: Comparison, space: str) -> Estimate:
    return weighted_mean(two_sample.recall_indicators(c.neighbourhoods(space)), c.reference.weights)


@figure(
    "density",
    "distances",
    "closest to ceiling",
    f"Mean number of {N_NEIGHBOURS}-nearest-neighbour balls of reference cells that a cell of the system lies in, "
    f"divided by {N_NEIGHBOURS}: 1 as dense as the reference, more when crowded into its densest parts. "
    + NARROW.format("neighbours"),
    scope="space",
)
def _density(c: Comparison, space: str) -> Estimate:
    return weighted_mean(two_sample.density_counts(c.neighbourhoods(space)), c.system.weights)


@figure(
    "coverage",
    "distances",
    "higher",
    f"Share of reference cells with a cell of the system nearer than their {N_NEIGHBOURS}th nearest reference cell. "
    + NARROW.format("neighbours"),
    scope="space",
)
def _coverage(c: Comparison, space: str) -> Estimate:
    return weighted_mean(two_sample.coverage_indicators(c.neighbourhoods(space)), c.reference.weights)

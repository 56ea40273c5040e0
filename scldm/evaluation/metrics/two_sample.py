"""Metrics of two samples: whether they can be told apart, and whether each covers the other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from scldm.evaluation.bootstrap import Estimate, WeightsX, WeightsY, X, Y, weighted_mean
from scldm.evaluation.compare import Comparison
from scldm.evaluation.metrics.nearest import N_NEIGHBOURS, Neighbourhoods, nearest
from scldm.evaluation.metrics.registry import Limit, less, metric, more

__all__ = ["auroc", "nearest_neighbour_votes", "out_of_fold_scores"]

N_FOLDS = 3
# Few and quick trees: at 100 to 2,000 cells a side, twice as many at half the rate find no more.
N_TREES = 20
LEARNING_RATE = 0.2

_NARROW = "Resamples keep the {}, so the interval is somewhat narrow."


def _neighbourhoods(c: Comparison, space: str) -> Neighbourhoods:
    """Find nearest neighbours within and between the two sides, once per space."""
    points = c.reference.features[space]
    known = c.reference.once(f"nearest, {space}", lambda: nearest(points, points, N_NEIGHBOURS, exclude_self=True))
    return c.once(
        f"neighbourhoods, {space}",
        lambda: Neighbourhoods.find(points, c.system.features[space], within_reference=known),
    )


@metric(
    "nearest_neighbour_accuracy",
    group="distances",
    direction="closest to ceiling",
    description="Leave-one-out accuracy of a 1-nearest-neighbour classifier of system against reference in the feature "
    "space: 0.5 cannot be told apart, 1 is always told apart, below 0.5 suggests copies. "
    + _NARROW.format("neighbours"),
    scope="space",
    limits=(
        # fewer than .5 as real cells among each other: every generated cell has its real twin
        Limit(
            "memorisation",
            less(0.10, 0.20),
            "The nearest neighbours of cells are too often on the other side (1-NN accuracy {value:.2f}, real against "
            "real {ceiling:.2f}): they look like copies of the held-out cells; was the generator trained on them?",
            order=2,
        ),
        Limit(
            "distances",
            more(0.05, 0.20),
            "Cells can be told from real ones by their nearest neighbour in {value:.0%} of cases (real cells from each "
            "other: {ceiling:.0%}).",
            "1-NN accuracy",
        ),
    ),
)
def _nearest_neighbour_accuracy(c: Comparison, space: str) -> Estimate:
    votes = nearest_neighbour_votes(_neighbourhoods(c, space))
    return weighted_mean(np.concatenate(votes), np.concatenate([c.reference.weights, c.system.weights], axis=1))


@metric(
    "classifier_auroc",
    group="distances",
    direction="closest to ceiling",
    display_name="Classifier AUROC",
    description="Area under the ROC curve of gradient-boosted trees trained to tell system from reference in the "
    f"feature space, scored on cells they have not seen ({N_FOLDS} folds): 0.5 cannot be told apart. "
    + _NARROW.format("trained trees"),
    scope="space",
    limits=Limit(
        "distances",
        more(0.10, 0.30),
        "A classifier tells cells from real ones with an AUROC of {value:.2f} (real cells from each other: "
        "{ceiling:.2f}).",
        "classifier AUROC",
    ),
)
def _classifier_auroc(c: Comparison, space: str) -> Estimate:
    scores = out_of_fold_scores(c.reference.features[space], c.system.features[space])
    return auroc(*scores, c.reference.weights, c.system.weights)


@metric(
    "precision",
    group="distances",
    direction="higher",
    description=f"Share of the system's cells inside the {N_NEIGHBOURS}-nearest-neighbour manifold of the reference.",
    scope="space",
    limits=Limit(
        "distances",
        less(0.10, 0.25),
        "Only {value:.0%} of the cells lie where real cells do (real cells among each other: {ceiling:.0%}).",
        "precision",
    ),
)
def _precision(c: Comparison, space: str) -> Estimate:
    return weighted_mean(_neighbourhoods(c, space).precision, c.system.weights)


@metric(
    "recall",
    group="distances",
    direction="higher",
    description=f"Share of reference cells inside the {N_NEIGHBOURS}-nearest-neighbour manifold of the system's cells.",
    scope="space",
    # a tenth of the real cells without a generated one near is a small population, or the fringe of all
    limits=Limit(
        "modes",
        less(0.10, 0.25),
        "Part of the variety of real cells is missing: only {value:.0%} of them lie where generated cells do (real "
        "cells among each other: {ceiling:.0%}).",
        "recall",
    ),
)
def _recall(c: Comparison, space: str) -> Estimate:
    return weighted_mean(_neighbourhoods(c, space).recall, c.reference.weights)


@metric(
    "density",
    group="distances",
    direction="closest to ceiling",
    description=f"Mean number of {N_NEIGHBOURS}-nearest-neighbour balls of reference cells that a cell of the system "
    f"lies in, divided by {N_NEIGHBOURS}: 1 as dense as the reference, more when crowded into its densest parts. "
    + _NARROW.format("neighbours"),
    scope="space",
)
def _density(c: Comparison, space: str) -> Estimate:
    return weighted_mean(_neighbourhoods(c, space).density, c.system.weights)


@metric(
    "coverage",
    group="distances",
    direction="higher",
    description="Share of reference cells with a cell of the system nearer than their "
    f"{N_NEIGHBOURS}th nearest reference cell. " + _NARROW.format("neighbours"),
    scope="space",
    limits=Limit(
        "modes",
        less(0.10, 0.25),
        "Only {value:.0%} of the real cells have a generated cell near (real cells among each other: "
        "{ceiling:.0%}): some kinds of cells are missing or too rare.",
        "coverage",
    ),
)
def _coverage(c: Comparison, space: str) -> Estimate:
    return weighted_mean(_neighbourhoods(c, space).coverage, c.reference.weights)


def nearest_neighbour_votes(
    near: Neighbourhoods,
) -> tuple[Float[np.ndarray, " reference_cells"], Float[np.ndarray, " system_cells"]]:
    """Tell for every cell whether its nearest neighbour among all other cells is on its own side.

    The mean over all cells is the leave-one-out accuracy of a 1-nearest-neighbour classifier (Lopez-Paz and Oquab,
    2017): one half for samples of equal size from one distribution, 1 when they are separated, and below one half when
    each cell has a near copy on the other side. Cells at exactly the same least distance share the vote (of each side,
    the five nearest are looked at).
    """

    def votes(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        least = np.minimum(own[:, :1], other[:, :1])
        n_own, n_other = (own == least).sum(axis=1), (other == least).sum(axis=1)
        return n_own / (n_own + n_other)

    return (
        votes(near.reference_to_reference.distances, near.reference_to_system.distances),
        votes(near.system_to_system.distances, near.system_to_reference.distances),
    )


def out_of_fold_scores(
    reference: X, system: Y, seed: int = 0
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Train small boosted trees to tell system from reference, and score every cell by trees that have not seen it.

    The scores are probabilities of being the system's.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold
    from threadpoolctl import threadpool_limits

    features = np.concatenate([reference, system])
    side = np.repeat([0, 1], [len(reference), len(system)])
    scores = np.zeros(len(features))
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    # trees as small as these are slower with several threads than with one
    with threadpool_limits(1, user_api="openmp"):
        for train, test in folds.split(features, side):
            trees = HistGradientBoostingClassifier(
                max_iter=N_TREES,
                learning_rate=LEARNING_RATE,
                max_leaf_nodes=8,
                min_samples_leaf=5,
                early_stopping=False,
                random_state=seed,
            )
            scores[test] = trees.fit(features[train], side[train]).predict_proba(features[test])[:, 1]
    return scores[: len(reference)], scores[len(reference) :]


def auroc(
    negative: Float[np.ndarray, " n"], positive: Float[np.ndarray, " m"], weights_n: WeightsX, weights_m: WeightsY
) -> Estimate:
    """Estimate the area under the ROC curve: how often a positive cell scores above a negative one; ties count half."""
    scores = np.concatenate([negative, positive])
    _, rank = np.unique(scores, return_inverse=True)
    order = np.argsort(rank, kind="stable")
    is_positive: Bool[np.ndarray, " cells"] = (order >= len(negative)).astype(bool)
    ones = np.ones((1, len(scores)))
    weights = np.concatenate([ones, np.concatenate([weights_n, weights_m], axis=1)])[:, order]
    # one column per distinct score
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    up = np.add.reduceat(weights * is_positive, starts, axis=1)
    down = np.add.reduceat(weights * ~is_positive, starts, axis=1)
    below = np.cumsum(down, axis=1) - 0.5 * down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    value, *replicates = (up * below).sum(axis=1) / np.maximum(pairs, 1.0)
    return Estimate(float(value), np.array(replicates))

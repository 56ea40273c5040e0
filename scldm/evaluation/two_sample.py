"""Can the cells of two sides be told apart, and does each side cover the other? One number per cell, then means."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from scldm.evaluation.neighbours import Neighbourhoods
from scldm.evaluation.resampling import Estimate

__all__ = [
    "auroc",
    "coverage_indicators",
    "density_counts",
    "nearest_neighbour_votes",
    "out_of_fold_scores",
    "precision_indicators",
    "recall_indicators",
]

N_FOLDS = 3
# Few and quick trees: at 100 to 2,000 cells a side, twice as many at half the rate find no more.
N_TREES = 20
LEARNING_RATE = 0.2


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


def precision_indicators(near: Neighbourhoods) -> Float[np.ndarray, " system_cells"]:
    """Tell for every cell of the system whether it lies on the real manifold (Kynkäänniemi et al., 2019)."""
    return (near.system_in_reference_balls > 0).astype(np.float64)


def recall_indicators(near: Neighbourhoods) -> Float[np.ndarray, " reference_cells"]:
    """Tell for every reference cell whether it lies on the system's manifold (Kynkäänniemi et al., 2019)."""
    return (near.reference_in_system_balls > 0).astype(np.float64)


def density_counts(near: Neighbourhoods) -> Float[np.ndarray, " system_cells"]:
    """Count for every cell of the system the real balls it lies in, per neighbour of a ball (Naeem et al., 2020).

    Its mean is 1 in expectation for equal distributions, and is less upset by single outliers than precision is.
    """
    return near.system_in_reference_balls / near.reference_to_reference.distances.shape[1]


def coverage_indicators(near: Neighbourhoods) -> Float[np.ndarray, " reference_cells"]:
    """Tell for every reference cell whether its own ball holds a cell of the system (Naeem et al., 2020)."""
    radii = near.reference_to_reference.distances[:, -1]
    return (near.reference_to_system.distances[:, 0] <= radii).astype(np.float64)


def out_of_fold_scores(
    reference: Float[np.ndarray, "n features"], system: Float[np.ndarray, "m features"], seed: int = 0
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Train small boosted trees to tell system from reference, and score every cell by trees that have not seen it.

    Returns
    -------
    The predicted probability of being the system's, for the cells of both sides.
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
    negative: Float[np.ndarray, " n"],
    positive: Float[np.ndarray, " m"],
    weights_n: Float[np.ndarray, "resamples n"],
    weights_m: Float[np.ndarray, "resamples m"],
) -> Estimate:
    """Estimate the area under the ROC curve: how often a positive cell scores above a negative one; ties count half.

    Parameters
    ----------
    negative, positive
        Scores of both kinds.
    weights_n, weights_m
        From `draw_weights`.
    """
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

"""Metrics of memorisation: whether cells are copies of training cells, and what an attacker could find out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt64
from scipy.sparse import csr_matrix, vstack

from scldm.evaluation.bootstrap import Estimate, WeightsX, WeightsY, median_ratio, weighted_mean, weighted_quantiles
from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Comparison, Side
from scldm.evaluation.metrics.nearest import nearest
from scldm.evaluation.metrics.registry import Limit, Loss, lost, metric, more, ratio
from scldm.evaluation.metrics.two_sample import auroc
from scldm.evaluation.records import PRIMARY_SPACE
from scldm.evaluation.spaces import FeatureSpace
from scldm.seeds import numpy_rng

__all__ = ["NEAR", "attack_scores", "cell_hashes", "copied", "distance_to_training", "near_shares"]

# A cell is a near duplicate when only 1 % of real cells that no generator has seen lie as close to a training cell.
NEAR = 0.01


@metric(
    "nearest_training_ratio",
    group="memorisation",
    direction="closest to ceiling",
    description="Median distance to the nearest training cell in the primary space, divided by that of the reference "
    "cells: 0 for copies; well above 1 for cells unlike any real one.",
    limits=(
        Limit(
            "memorisation",
            lost(0.05, 0.20),
            "Cells lie too close to training cells: at {value:.2f} times the distance of real held-out cells (ceiling: "
            "{ceiling:.2f}); 0 means copies.",
            "distance to training cells",
            order=1,
        ),
        Limit(
            "distances",
            Loss(lambda value, ceiling: ratio(value, ceiling) - 1.0, 0.10, 0.50),
            "Cells lie farther from training cells than real ones do: at {value:.2f} times the distance of held-out "
            "cells (ceiling: {ceiling:.2f}).",
        ),
    ),
)
def _nearest_training_ratio(c: Comparison) -> Estimate | None:
    if c.fitted.training is None:
        return None
    system, reference = (distance_to_training(side, c.fitted.training) for side in (c.system, c.reference))
    return median_ratio(system, reference, c.system.weights, c.reference.weights)


@metric(
    "exact_duplicates",
    group="memorisation",
    direction="lower",
    description="Share of the system's cells whose counts equal those of a training cell in every judged gene.",
    all_cells=True,
    # of real cells about 1 % are near duplicates, and none an exact one unless depth is very low
    limits=Limit(
        "memorisation",
        more(0.0, 0.01),
        "{value:.1%} of the cells are exact copies of training cells (of real held-out cells: {ceiling:.1%}).",
        "exact copies",
    ),
)
def _exact_duplicates(c: Comparison) -> Estimate | None:
    if c.fitted.training is None:
        return None
    copies = copied(c.system.cells.counts, c.fitted.training.cells.counts)
    return weighted_mean(copies.astype(np.float64), c.system.weights)


@metric(
    "near_duplicates",
    group="memorisation",
    direction="closest to ceiling",
    description="Share of the system's cells that lie nearer to a training cell, in the primary space, than all but "
    f"{NEAR:.0%} of the reference cells do; {NEAR} is expected of real cells.",
    limits=Limit(
        "memorisation",
        more(0.02, 0.10),
        "{value:.1%} of the cells lie closer to a training cell than all but 1 % of real cells do (of held-out "
        "cells: {ceiling:.1%}).",
        "near copies",
    ),
)
def _near_duplicates(c: Comparison) -> Estimate | None:
    if c.fitted.training is None:
        return None
    system, reference = (distance_to_training(side, c.fitted.training) for side in (c.system, c.reference))
    return Estimate(*near_shares(system, reference, c.system.weights, c.reference.weights))


@metric(
    "membership_auroc",
    group="memorisation",
    direction="closest to ceiling",
    display_name="Membership AUROC",
    description="How well an attacker who has all of the system's cells and nothing else tells training cells from "
    "held-out ones (area under the ROC curve; the score is closeness to the nearest of the system's cells, in "
    "principal components of as many training as held-out cells): 0.5 if nothing leaks.",
    # an attacker gains .5 n / N by n copies out of N training cells: a tenth of them passes the first limit
    limits=Limit(
        "memorisation",
        Loss(lambda value, ceiling: value - max(0.5, ceiling), 0.05, 0.10),  # 0.5 is what chance gives
        "The cells give away what was trained on: from them alone a training cell is told from a held-out cell "
        "with an AUROC of {value:.2f} (0.5 is chance; real cells: {ceiling:.2f}).",
        "membership AUROC",
        order=1,
    ),
)
def _membership_auroc(c: Comparison) -> Estimate | None:
    training, others = c.fitted.training, c.reference
    if training is None:
        return None
    n_cells = min(len(training.cells), len(others.cells))
    # another draw for every split of the held-out cells, the same for every system
    rng = numpy_rng(c.split, "members")
    members, others = (
        side.take(np.sort(rng.choice(len(side.cells), n_cells, replace=False))) for side in (training, others)
    )
    of_members, of_others = attack_scores(c.release.cells, members.cells, others.cells)
    return auroc(of_others, of_members, others.weights, members.weights)


def distance_to_training(side: Side, training: Side) -> Float[np.ndarray, " cells"]:
    """Find the distance of every cell to its nearest training cell, once per side."""
    points, among = side.features[PRIMARY_SPACE], training.features[PRIMARY_SPACE]
    return side.once("distance to training", lambda: nearest(points, among).distances[:, 0])


def cell_hashes(counts: csr_matrix) -> UInt64[np.ndarray, " cells"]:
    """Compute one 64-bit number per cell that is equal for cells with equal counts in every gene.

    The sum over genes of count times a fixed random number, modulo 2^64; the order of the entries and stored zeros do
    not matter. Different cells get equal numbers with a probability of about 1e-19 per pair.
    """
    keys = numpy_rng(0).integers(0, 2**64, counts.shape[1], dtype=np.uint64) | np.uint64(1)
    exact = csr_matrix((counts.data.astype(np.uint64), counts.indices, counts.indptr), shape=counts.shape)
    return np.asarray(exact @ keys)


def copied(system: csr_matrix, training: csr_matrix) -> Bool[np.ndarray, " cells"]:
    """Find the cells whose counts equal those of a training cell in every gene."""
    return np.isin(cell_hashes(system), cell_hashes(training))


def near_shares(
    system: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, " m"],
    system_weights: WeightsX,
    reference_weights: WeightsY,
) -> tuple[float, Float[np.ndarray, " resamples"]]:
    """Compute the share of cells, and its replicates, that lie nearer to a training cell than 99 % of the reference do.

    Both are given by the distance of every cell to its nearest training cell. The threshold is the 1 % quantile of the
    reference at position 0.01 (n + 1), so that 1 % of other real cells are expected below it. With fewer than 99
    reference cells it is the smallest distance, below which 1 / (n + 1) are expected.
    """
    threshold = np.quantile(reference, NEAR, method="weibull")
    thresholds = weighted_quantiles(reference, reference_weights, NEAR)
    total = np.maximum(system_weights.sum(axis=1, dtype=np.float64), 1.0)
    near = (system_weights * (system <= thresholds[:, None])).sum(axis=1, dtype=np.float64)
    return float((system <= threshold).mean()), near / total


def attack_scores(release: Cells, members: Cells, others: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Score members and others as an attacker would who has only generated cells and asks what was trained on.

    Members are cells that the generator was trained on; others are as many real cells that it was not. The score is
    minus the distance to the nearest generated cell. The space is fitted on members and others together: cells lie
    differently in a space that was fitted on them, so both have to take the same part in it, and then an area of one
    half is exactly what a generator without knowledge of the members gets. A space fitted on the generated cells would
    not do: it inherits whatever noise of the members the generator has learnt, in which members stick out.
    """
    if len(members) != len(others):
        raise ValueError(f"{len(members)} members and {len(others)} others; as many are needed of both")
    both = csr_matrix(vstack([members.log1p_cp10k, others.log1p_cp10k]))
    space = FeatureSpace.fit(both)
    released = space.transform(release)
    members_score, others_score = (-nearest(space.transform(c), released).distances[:, 0] for c in (members, others))
    return members_score, others_score

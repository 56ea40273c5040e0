"""Figures of merit of memorisation; all need the training cells."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from scldm.evaluation.depths import median_ratio
from scldm.evaluation.memorisation import NEAR, attack_scores, copied, near_shares
from scldm.evaluation.neighbours import nearest
from scldm.evaluation.preparation import generator
from scldm.evaluation.registry import PRIMARY_SPACE, Comparison, Side, figure
from scldm.evaluation.resampling import Estimate, weighted_mean
from scldm.evaluation.two_sample import auroc

__all__: list[str] = []

_distances: WeakKeyDictionary[Side, Float[np.ndarray, " cells"]] = WeakKeyDictionary()


@figure(
    "nearest_training_ratio",
    "memorisation",
    "closest to ceiling",
    "Median distance to the nearest training cell in the primary space, divided by that of the reference cells: 0 for "
    "copies; well above 1 for cells unlike any real one.",
)
def _nearest_training_ratio(c: Comparison) -> Estimate | None:
    if c.judge.training is None:
        return None
    system, reference = (_to_training(side, c.judge.training) for side in (c.system, c.reference))
    found = median_ratio(system, reference, c.system.weights, c.reference.weights)
    return None if found is None else Estimate(*found)


@figure(
    "exact_duplicates",
    "memorisation",
    "lower",
    "Share of the system's cells whose counts equal those of a training cell in every judged gene.",
    all_cells=True,
)
def _exact_duplicates(c: Comparison) -> Estimate | None:
    if c.judge.training is None:
        return None
    copies = copied(c.system.cells.counts, c.judge.training.cells.counts)
    return weighted_mean(copies.astype(np.float64), c.system.weights)


@figure(
    "near_duplicates",
    "memorisation",
    "closest to ceiling",
    "Share of the system's cells that lie nearer to a training cell, in the primary space, than all but "
    f"{NEAR:.0%} of the reference cells do; {NEAR} is expected of real cells.",
)
def _near_duplicates(c: Comparison) -> Estimate | None:
    if c.judge.training is None:
        return None
    system, reference = (_to_training(side, c.judge.training) for side in (c.system, c.reference))
    return Estimate(*near_shares(system, reference, c.system.weights, c.reference.weights))


@figure(
    "membership_auroc",
    "memorisation",
    "closest to ceiling",
    "How well an attacker who has all of the system's cells and nothing else tells training cells from held-out ones "
    "(area under the ROC curve; the score is closeness to the nearest of the system's cells, in principal components "
    "of as many training as held-out cells): 0.5 if nothing leaks.",
)
def _membership_auroc(c: Comparison) -> Estimate | None:
    training, others = c.judge.training, c.reference
    if training is None:
        return None
    n_cells = min(len(training.cells), len(others.cells))
    # another draw for every split of the held-out cells, the same for every system
    rng = generator(c.split, "members")
    members, others = (
        side.take(np.sort(rng.choice(len(side.cells), n_cells, replace=False))) for side in (training, others)
    )
    of_members, of_others = attack_scores(c.release.cells, members.cells, others.cells)
    return auroc(of_others, of_members, others.weights, members.weights)


def _to_training(side: Side, training: Side) -> Float[np.ndarray, " cells"]:
    """Find the distance of every cell to its nearest training cell, once per side."""
    if side not in _distances:
        _distances[side] = nearest(side.features[PRIMARY_SPACE], training.features[PRIMARY_SPACE]).distances[:, 0]
    return _distances[side]

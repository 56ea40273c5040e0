"""Metrics of memorisation: whether cells are copies of training cells, and what an attacker could find out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt64
from scipy.sparse import csr_matrix, vstack

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Comparison, Masks, Rows, Side
from scldm.evaluation.metrics.nearest import nearest
from scldm.evaluation.metrics.registry import Limit, Loss, lost, metric, more, ratio
from scldm.evaluation.metrics.rows import mean_of, ordered, quantile_of
from scldm.evaluation.metrics.two_sample import auroc
from scldm.evaluation.records import PRIMARY_SPACE
from scldm.evaluation.spaces import FeatureSpace
from scldm.seeds import numpy_rng

__all__ = ["NEAR", "attack_scores", "attack_space", "cell_hashes", "copied", "distance_to_training", "near_shares"]

# A cell is a near duplicate when only 1 % of real cells that no generator has seen lie as close to a training cell.
NEAR = 0.01


@metric(
    "nearest_training_ratio",
    group="memorisation",
    direction="closest to ceiling",
    description="Median distance to the nearest training cell in the primary space, divided by that of all held-out "
    "cells: 0 for copies; well above 1 for cells unlike any real one.",
    values="0 or more",
    degenerate="0 for copies; not computed without training cells, or where half of the held-out cells are copies.",
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
def _nearest_training_ratio(c: Comparison) -> Rows | None:
    if c.fitted.training is None:
        return None
    # in the unit of what held-out cells have: the reference of a permutation may be copies, all at no distance
    unit = float(np.median(distance_to_training(c.held_out, c.fitted.training)))
    if not unit > 0:
        return None
    return quantile_of(distance_to_training(c.pool, c.fitted.training), c.system, 0.5) / unit


@metric(
    "exact_duplicates",
    group="memorisation",
    direction="lower",
    description="Share of the system's cells whose counts equal those of a training cell in every judged gene.",
    values="0 to 1",
    degenerate="0 for real cells unless depth is very low: then it is above 0 for anybody.",
    # of real cells about 1 % are near duplicates, and none an exact one unless depth is very low
    limits=Limit(
        "memorisation",
        more(0.0, 0.01),
        "{value:.1%} of the cells are exact copies of training cells (of real held-out cells: {ceiling:.1%}).",
        "exact copies",
    ),
)
def _exact_duplicates(c: Comparison) -> Rows | None:
    training = c.fitted.training
    if training is None:
        return None
    copies = c.pool.once("copies", lambda: copied(c.pool.cells.counts, training.cells.counts).astype(np.float64))
    return mean_of(copies, c.system)


@metric(
    "near_duplicates",
    group="memorisation",
    direction="closest to ceiling",
    description="Share of the system's cells that lie nearer to a training cell, in the primary space, than all but "
    f"{NEAR:.0%} of the reference cells do; {NEAR} is expected of real cells.",
    values="0 to 1",
    degenerate="0.01 for real cells in expectation; with fewer than 99 cells, 1 / (n + 1).",
    limits=Limit(
        "memorisation",
        more(0.02, 0.10),
        "{value:.1%} of the cells lie closer to a training cell than all but 1 % of real cells do (of held-out "
        "cells: {ceiling:.1%}).",
        "near copies",
    ),
)
def _near_duplicates(c: Comparison) -> Rows | None:
    if c.fitted.training is None:
        return None
    return near_shares(distance_to_training(c.pool, c.fitted.training), c.system, c.reference)


def _members(c: Comparison, reference: np.ndarray, number: int) -> tuple[FeatureSpace, np.ndarray, np.ndarray]:
    """Draw training cells and as many held-out ones, and fit the attacker's space; the same ones for every system.

    Gives the positions of the training cells among all of them, and of the others in the pool.
    """
    training = c.fitted.training
    assert training is not None
    others = np.flatnonzero(reference)
    n_cells = min(len(training), len(others))
    rng = c.rng(f"members {number}")
    members = np.sort(rng.choice(len(training), n_cells, replace=False))
    others = np.sort(rng.choice(others, n_cells, replace=False))
    space = c.fitted.once(
        f"space of members {number}, seed {c.seed}",
        lambda: attack_space(training.cells.take(members), c.pool.cells.take(others)),
    )
    return space, members, others


def _attacks(c: Comparison) -> list[tuple[np.ndarray, np.ndarray]]:
    """Score members and others of every draw as an attacker would; see `attack_scores`."""

    def attack() -> list[tuple[np.ndarray, np.ndarray]]:
        training, found = c.fitted.training, []
        assert training is not None
        for number, (system, reference) in enumerate(zip(c.system, c.reference, strict=True)):
            space, members, others = _members(c, reference, number)
            release = c.pool.cells.take(np.flatnonzero(system)) if c.release is None else c.release.cells
            found.append(attack_scores(space, release, training.cells.take(members), c.pool.cells.take(others)))
        return found

    return c.once("attacks", attack)


def _membership_null(c: Comparison, n_permutations: int) -> Rows | None:
    """Exchange members and others: nothing leaks if which cells were trained on makes no difference to their scores.

    A cell is on the same side in every draw.
    """
    training = c.fitted.training
    if training is None:
        return None
    scores = _attacks(c)
    drawn = [_members(c, reference, number)[1:] for number, reference in enumerate(c.reference)]
    found = np.zeros(n_permutations)
    for number in range(n_permutations):
        is_member = c.rng(f"membership {number}").random(len(training) + len(c.pool)) < 0.5
        for (of_members, of_others), (members, others) in zip(scores, drawn, strict=True):
            side = is_member[np.concatenate([members, len(training) + others])]
            both = np.concatenate([of_members, of_others])
            found[number] += auroc(both[~side], both[side]) if 0 < side.sum() < len(side) else 0.5
    return found / len(scores) - 0.5


@metric(
    "membership_auroc",
    group="memorisation",
    direction="lower",
    display_name="Membership AUROC",
    description="How well an attacker who has all of the system's cells and nothing else tells training cells from "
    "held-out ones (area under the ROC curve; the score is closeness to the nearest of the system's cells, in "
    "principal components of as many training as held-out cells): 0.5 if nothing leaks.",
    values="0 to 1",
    degenerate="0.5 where nothing leaks; training and held-out cells of different donors differ without any leak.",
    # an attacker gains .5 n / N by n copies out of N training cells: a tenth of them passes the first limit
    limits=Limit(
        "memorisation",
        Loss(lambda value, ceiling: value - max(0.5, ceiling), 0.05, 0.10),  # 0.5 is what chance gives
        "The cells give away what was trained on: from them alone a training cell is told from a held-out cell "
        "with an AUROC of {value:.2f} (0.5 is chance; real cells: {ceiling:.2f}).",
        "membership AUROC",
        order=1,
    ),
    max_halvings=4,
    null=_membership_null,
    expected=0.5,
)
def _membership_auroc(c: Comparison) -> Rows | None:
    if c.fitted.training is None:
        return None
    return np.array([auroc(of_others, of_members) for of_members, of_others in _attacks(c)])


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


def near_shares(distances: Float[np.ndarray, " cells"], system: Masks, reference: Masks) -> Rows:
    """Compute the share of the system's cells that lie nearer to a training cell than 99 % of the reference do.

    Cells are given by the distance of each to its nearest training cell. The threshold is the 1 % quantile of the
    reference at position 0.01 (n + 1), so that 1 % of other real cells are expected below it. With fewer than 99
    reference cells it is the smallest distance, below which 1 / (n + 1) are expected.
    """
    thresholds = quantile_of(distances, reference, NEAR, method="weibull")
    return (ordered(distances, system) <= thresholds[:, None]).mean(axis=1)


def attack_space(members: Cells, others: Cells) -> FeatureSpace:
    """Fit the space in which an attacker looks for generated cells near to cells that may have been trained on.

    Members are cells that the generator was trained on; others are as many real cells that it was not. The space is
    fitted on both together: cells lie differently in a space that was fitted on them, so both have to take the same
    part in it, and then an area of one half is exactly what a generator without knowledge of the members gets. A space
    fitted on the generated cells would not do: it inherits whatever noise of the members the generator has learnt, in
    which members stick out. Raises ``ValueError`` if the two are not equally many.
    """
    if len(members) != len(others):
        raise ValueError(f"{len(members)} members and {len(others)} others; as many are needed of both")
    return FeatureSpace.fit(csr_matrix(vstack([members.log1p_cp10k, others.log1p_cp10k])))


def attack_scores(
    space: FeatureSpace, release: Cells, members: Cells, others: Cells
) -> tuple[Float[np.ndarray, " members"], Float[np.ndarray, " others"]]:
    """Score members and others as an attacker would who has only generated cells and asks what was trained on.

    The score is minus the distance to the nearest generated cell, in the `attack_space` of both.
    """
    released = space.transform(release)
    members_score, others_score = (-nearest(space.transform(c), released).distances[:, 0] for c in (members, others))
    return members_score, others_score

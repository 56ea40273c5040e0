"""Figures of labels: whether cells look like what they were asked to be, no more and no less than real ones."""

from __future__ import annotations

from collections.abc import Sequence

from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, recognised, worst_gap
from scldm.evaluation.registry import Comparison, figure
from scldm.evaluation.resampling import Estimate, weighted_mean

__all__: list[str] = []


@figure(
    "label_agreement",
    "labels",
    "closest to ceiling",
    "Share of the system's cells that a logistic regression, trained on real cells in the primary space, recognises as "
    "what their label says; more than the ceiling means labels that are told apart too easily.",
    scope="condition",
    all_cells=True,
)
def _label_agreement(c: Comparison, condition: str) -> Estimate | None:
    return _agreement(c, [condition])


@figure(
    "label_agreement_joint",
    "labels",
    "closest to ceiling",
    "Share of the system's cells of which all judged labels are recognised at once (with two or more conditions).",
    all_cells=True,
)
def _label_agreement_joint(c: Comparison) -> Estimate | None:
    conditions = [str(column) for column in c.reference.cells.labels if column in c.judge.classifiers]
    return _agreement(c, conditions) if len(conditions) > 1 else None


@figure(
    "label_worst_gap",
    "labels",
    "lower",
    "Largest absolute difference in label agreement between the system's and held-out real cells of one label, over "
    f"labels with more than {MIN_CELLS_PER_LABEL} held-out cells and at least {MIN_CELLS_PER_LABEL} of the system.",
    scope="condition",
    all_cells=True,
)
def _label_worst_gap(c: Comparison, condition: str) -> Estimate | None:
    return worst_gap(c.judge, c.reference, c.system, condition)


def _agreement(c: Comparison, conditions: Sequence[str]) -> Estimate | None:
    """Average over cells whether all their labels are recognised."""
    found = recognised(c.judge, c.system, conditions)
    return None if found is None else weighted_mean(found[1], c.system.weights[:, found[0]])

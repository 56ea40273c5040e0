"""Figures of labels: whether cells look like what they were asked to be, no more and no less than real ones."""

from __future__ import annotations

from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, agreement, worst_gap
from scldm.evaluation.registry import Comparison, figure
from scldm.evaluation.resampling import Estimate

__all__: list[str] = []


@figure(
    "label_agreement",
    "labels",
    "closest to ceiling",
    "Share of the system's cells that a logistic regression, trained on real cells in the primary space, recognises as "
    "what their label says, with labels as frequent as in held-out cells (over those that both have); more than the "
    "ceiling means labels that are told apart too easily.",
    scope="condition",
    all_cells=True,
)
def _label_agreement(c: Comparison, condition: str) -> Estimate | None:
    return agreement(c.judge, c.reference, c.system, [condition])


@figure(
    "label_agreement_joint",
    "labels",
    "closest to ceiling",
    "Share of the system's cells of which all judged labels are recognised at once (with two or more conditions), with "
    "combinations of labels as frequent as in held-out cells.",
    all_cells=True,
)
def _label_agreement_joint(c: Comparison) -> Estimate | None:
    conditions = [str(column) for column in c.reference.cells.labels if column in c.judge.classifiers]
    return agreement(c.judge, c.reference, c.system, conditions) if len(conditions) > 1 else None


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
    # held-out cells against themselves would be zero, which not even real cells can reach
    return None if c.system is c.reference else worst_gap(c.judge, c.reference, c.system, condition)

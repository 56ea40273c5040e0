"""Metrics of labels: whether cells look like the label they carry, no more and no less than real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.bootstrap import Estimate, weighted_mean
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.labels import COMBINATION, MIN_CELLS_PER_LABEL, LabelFidelity, frequent_labels, known_labels
from scldm.evaluation.metrics.registry import Limit, less, metric, more
from scldm.evaluation.records import Value

__all__ = ["agreement", "combined_labels", "label_fidelity", "recognised", "worst_gap"]


@metric(
    "label_agreement",
    group="labels",
    direction="closest to ceiling",
    description="Share of the system's cells that a logistic regression, trained on real cells in the primary space, "
    "recognises as what their label says, with labels as frequent as in held-out cells (over those that both have); "
    "more than the ceiling means labels that are told apart too easily.",
    scope="condition",
    all_cells=True,
    limits=(
        # more than real is a failure as well: types that do not overlap as the real ones do
        Limit(
            "labels",
            more(0.03, 0.10),
            "The labels of {condition} are told apart too easily: {value:.0%} of the cells are recognised, of real "
            "cells {ceiling:.0%}; real types overlap more.",
            "agreement",
        ),
        Limit(
            "labels",
            less(0.03, 0.10),
            "Cells do not look like their label of {condition}: {value:.0%} are recognised, of real cells "
            "{ceiling:.0%}.",
        ),
    ),
)
def _label_agreement(c: Comparison, condition: str) -> Estimate | None:
    return agreement(c.fitted, c.reference, c.system, [condition])


@metric(
    "label_agreement_joint",
    group="labels",
    direction="closest to ceiling",
    description="Share of the system's cells of which all judged labels are recognised at once (with two or more "
    "conditions), with combinations of labels as frequent as in held-out cells.",
    all_cells=True,
)
def _label_agreement_joint(c: Comparison) -> Estimate | None:
    conditions = [str(column) for column in c.reference.cells.labels if column in c.fitted.classifiers]
    return agreement(c.fitted, c.reference, c.system, conditions) if len(conditions) > 1 else None


@metric(
    "label_worst_gap",
    group="labels",
    direction="lower",
    description="Largest absolute difference in label agreement between the system's and held-out real cells of one "
    f"label, over labels with more than {MIN_CELLS_PER_LABEL} held-out cells and at least {MIN_CELLS_PER_LABEL} of the "
    "system.",
    scope="condition",
    all_cells=True,
)
def _label_worst_gap(c: Comparison, condition: str) -> Estimate | None:
    # held-out cells against themselves would be zero, which not even real cells can reach
    return None if c.system is c.reference else worst_gap(c.fitted, c.reference, c.system, condition)


def recognised(
    fitted: Fitted, side: Side, conditions: Sequence[str]
) -> tuple[Int[np.ndarray, " known"], Float[np.ndarray, " known"]] | None:
    """Find which cells of a side are recognised as what their labels say, in all given columns at once.

    Gives the positions of the cells that have a label in every column, and for each of them 1 if all its labels are
    recognised, else 0; None if a column is missing or has no classifier, or no cell has labels.
    """
    labels = side.cells.labels
    if not conditions or any(c not in fitted.classifiers or c not in labels for c in conditions):
        return None
    columns = [labels[c].to_numpy(dtype=object) for c in conditions]
    known = np.flatnonzero(np.logical_and.reduce([known_labels(column) for column in columns]))
    if not len(known):
        return None
    features = side.features[next(iter(fitted.spaces))][known]
    correct = np.ones(len(known), dtype=bool)
    for condition, column in zip(conditions, columns, strict=True):
        correct &= fitted.classifiers[condition].predict(features) == column[known].astype(str)
    return known, correct.astype(np.float64)


def combined_labels(side: Side, conditions: Sequence[str]) -> np.ndarray:
    """Give every cell's labels in several columns as one text; None where one is missing, or a whole column."""
    labels = side.cells.labels
    combined = np.full(len(side.cells), None, dtype=object)
    if all(condition in labels for condition in conditions):
        columns = [labels[c].to_numpy(dtype=object) for c in conditions]
        for i in np.flatnonzero(np.logical_and.reduce([known_labels(column) for column in columns])):
            combined[i] = COMBINATION.join(str(column[i]) for column in columns)
    return combined


def agreement(fitted: Fitted, real: Side, system: Side, conditions: Sequence[str]) -> Estimate | None:
    """Estimate how many cells are recognised as what their labels say, had every label the share that it has in truth.

    Labels differ in how easily they are recognised, so a system with other shares of them would score higher or lower
    for that alone. It is the mean over labels (with several columns: combinations of labels) that both sides have of
    the share recognised, weighted by the number of held-out cells: 0 without such a label, None where `recognised`
    finds nothing.
    """
    found = recognised(fitted, system, conditions)
    if found is None:
        return None
    known, correct = found
    own, expected = combined_labels(system, conditions)[known], combined_labels(real, conditions)
    common = pd.Index(sorted(set(own) & set(expected[known_labels(expected)])))
    if not len(common):
        return Estimate(0.0, np.zeros(len(system.weights)))
    n_real = _per_label(expected, common, np.ones(len(expected)), real.weights)
    n_own = _per_label(own, common, np.ones(len(own)), system.weights[:, known])
    n_correct = _per_label(own, common, correct, system.weights[:, known])
    # a label that a resample of the system lacks does not count there
    n_real[n_own == 0] = 0.0
    total = n_real.sum(axis=1)
    rates = (n_real * n_correct / np.maximum(n_own, 1.0)).sum(axis=1) / np.maximum(total, 1.0)
    rates = np.where(total > 0, rates, rates[0])
    return Estimate(float(rates[0]), rates[1:])


def worst_gap(fitted: Fitted, real: Side, system: Side, condition: str) -> Estimate | None:
    """Find the largest absolute difference in agreement between cells of one label and real ones.

    It is over labels with more than 20 held-out cells and at least 20 cells of the system; None without such a label.
    """
    found, labels = [], []
    for side in (real, system):
        if (one := recognised(fitted, side, [condition])) is None:
            return None
        found.append(one)
        labels.append(combined_labels(side, [condition])[one[0]])
    enough = set(frequent_labels(labels[0], MIN_CELLS_PER_LABEL + 1)) & set(frequent_labels(labels[1]))
    if not enough:
        return None
    common, rates = pd.Index(sorted(enough)), []
    for side, own, (known, correct) in zip((real, system), labels, found, strict=True):
        n_cells = _per_label(own, common, np.ones(len(own)), side.weights[:, known])
        rates.append(_per_label(own, common, correct, side.weights[:, known]) / np.maximum(n_cells, 1.0))
    return Estimate.of(np.abs(rates[0] - rates[1]).max(axis=1))


def label_fidelity(
    fitted: Fitted, real: Side, systems: Mapping[str, Side], conditions: Sequence[str]
) -> tuple[LabelFidelity, ...]:
    """Judge every label of every condition, and every combination of labels when there are several conditions.

    A condition without a classifier (with a single label) is left out. The most frequent labels among real cells come
    first; labels that only a system has come last.
    """
    judged = [condition for condition in conditions if condition in fitted.classifiers]
    groups = [[condition] for condition in judged] + ([judged] if len(judged) > 1 else [])
    return tuple(row for group in groups for row in _judge_group(fitted, real, systems, group))


def _judge_group(
    fitted: Fitted, real: Side, systems: Mapping[str, Side], conditions: Sequence[str]
) -> list[LabelFidelity]:
    """Judge the labels of one column, or the combinations of several."""
    sides = {"real": real, **systems}
    labels = {name: combined_labels(side, conditions) for name, side in sides.items()}
    found = {name: recognised(fitted, side, conditions) for name, side in sides.items()}
    counts = {name: Counter(label for label in values if label is not None) for name, values in labels.items()}
    every = {label for count in counts.values() for label in count}
    rows = []
    for label in sorted(every, key=lambda label: (-counts["real"][label], label)):
        cells = {name: np.flatnonzero(values == label) for name, values in labels.items()}
        depths = {name: sides[name].cells.library_size[chosen] for name, chosen in cells.items()}
        rows.append(
            LabelFidelity(
                condition=COMBINATION.join(conditions),
                label=label,
                n_real=counts["real"][label],
                n_generated={name: counts[name][label] for name in systems},
                rare=counts["real"][label] < MIN_CELLS_PER_LABEL,
                agreement={name: _agreement(sides[name], found[name], cells[name]) for name in sides},
                depth_ratio={name: _median_ratio(depths[name], depths["real"]) for name in systems},
            )
        )
    return rows


def _agreement(
    side: Side, found: tuple[np.ndarray, np.ndarray] | None, cells: Int[np.ndarray, " chosen"]
) -> Value | None:
    """Average over the cells with one label whether they are recognised."""
    if found is None or not len(cells):
        return None
    correct = found[1][np.searchsorted(found[0], cells)]
    return weighted_mean(correct, side.weights[:, cells]).reported


def _per_label(
    labels: np.ndarray, chosen: pd.Index, values: np.ndarray, weights: Float[np.ndarray, "resamples cells"]
) -> Float[np.ndarray, "rows chosen"]:
    """Sum a value over the cells of every chosen label: of the cells as they are, then per resample."""
    at = chosen.get_indexer(pd.Index(labels))
    cells = np.flatnonzero(at >= 0)
    onto = csr_matrix((values[cells], (cells, at[cells])), shape=(len(labels), len(chosen)))
    return np.asarray(np.vstack([np.ones(len(labels)), weights]) @ onto)


def _median_ratio(depths: Float[np.ndarray, " cells"], real: Float[np.ndarray, " real"]) -> float | None:
    """Divide median library sizes; None without cells on a side, or without counts."""
    if not len(depths) or not len(real) or not np.median(real) > 0:
        return None
    return float(np.median(depths) / np.median(real))

"""Metrics of labels: whether cells look like the label they carry, no more and no less than real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.compare import Comparison, Fitted, Masks, Rows, Side
from scldm.evaluation.labels import COMBINATION, MIN_CELLS_PER_LABEL, LabelFidelity, known_labels
from scldm.evaluation.metrics.registry import Limit, less, metric, more
from scldm.evaluation.records import Value

__all__ = ["agreement", "combined_labels", "label_fidelity", "proportion_interval", "recognised", "worst_gap"]


@metric(
    "label_agreement",
    group="labels",
    direction="closest to ceiling",
    description="Share of the system's cells that a logistic regression, trained on real cells in the primary space, "
    "recognises as what their label says, with labels as frequent as in held-out cells (over those that both have); "
    "more than the ceiling means labels that are told apart too easily.",
    values="0 to 1",
    degenerate="0 without a common label; as often right as by chance where labels cannot be recognised in real cells.",
    scope="condition",
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
def _label_agreement(c: Comparison, condition: str) -> Rows | None:
    return agreement(c, [condition])


@metric(
    "label_agreement_joint",
    group="labels",
    direction="closest to ceiling",
    description="Share of the system's cells of which all judged labels are recognised at once (with two or more "
    "conditions), with combinations of labels as frequent as in held-out cells.",
    values="0 to 1",
    degenerate="Not computed with a single condition.",
)
def _label_agreement_joint(c: Comparison) -> Rows | None:
    conditions = [str(column) for column in c.held_out.cells.labels if column in c.fitted.classifiers]
    return agreement(c, conditions) if len(conditions) > 1 else None


@metric(
    "label_worst_gap",
    group="labels",
    direction="lower",
    description="Largest absolute difference in label agreement between the system's and held-out real cells of one "
    f"label, over labels with at least {MIN_CELLS_PER_LABEL} expected cells and {MIN_CELLS_PER_LABEL // 2} in a "
    "draw of the system.",
    values="0 to 1",
    degenerate="Not 0 for real cells: it is the largest of several differences. 0 where no label has enough cells.",
    scope="condition",
)
def _label_worst_gap(c: Comparison, condition: str) -> Rows | None:
    return worst_gap(c, condition)


@metric(
    "label_shares",
    group="labels",
    direction="lower",
    description="Triangular discrimination between the shares of labels on both sides (of their combinations, with "
    "several conditions): half the sum over labels of the squared difference of shares over their sum. A label that is "
    "missed adds half its share. 0 where labels were asked for as they are in the held-out cells.",
    values="0 to 1",
    degenerate="0 where labels are asked for as they are in the held-out cells: then it says nothing of the generator.",
    limits=Limit(
        "labels",
        more(0.01, 0.10),
        "Labels are not as frequent as in real cells: their shares differ by {value:.2g} (real cells: {ceiling:.2g}; 1 "
        "is no label in common).",
    ),
)
def _label_shares(c: Comparison) -> Rows | None:
    conditions = [str(column) for column in c.held_out.cells.labels]
    labels = combined_labels(c.pool, conditions)
    known = known_labels(labels)
    if not conditions or not known.any():
        return None
    names = pd.Index(sorted(set(labels[known])))
    own, real = (_per_label(labels, names, known.astype(np.float64), chosen) for chosen in (c.system, c.reference))
    shares = [n / np.maximum(n.sum(axis=1, keepdims=True), 1.0) for n in (own, real)]
    total = shares[0] + shares[1]
    return 0.5 * ((shares[0] - shares[1]) ** 2 / np.where(total > 0, total, 1.0)).sum(axis=1)


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


def agreement(c: Comparison, conditions: Sequence[str]) -> Rows | None:
    """Compute how many cells are recognised as what their labels say, had every label the share that it has in truth.

    Labels differ in how easily they are recognised, so a system with other shares of them would score higher or lower
    for that alone. It is the mean over labels (with several columns: combinations of labels) that both sides have of
    the share recognised, weighted by the number of reference cells: 0 without such a label, None where no cell of the
    system has a label, or `recognised` finds nothing.
    """
    found = _recognised_of_pool(c, conditions)
    if found is None:
        return None
    labels, correct, names = found
    n_real = _per_label(labels, names, np.ones(len(labels)), c.reference)
    n_own = _per_label(labels, names, np.ones(len(labels)), c.system)
    n_correct = _per_label(labels, names, correct, c.system)
    if not n_own.any():
        return None
    n_real[n_own == 0] = 0.0
    return (n_real * n_correct / np.maximum(n_own, 1.0)).sum(axis=1) / np.maximum(n_real.sum(axis=1), 1.0)


def worst_gap(c: Comparison, condition: str) -> Rows | None:
    """Find the largest absolute difference in agreement between cells of one label and those of the reference.

    It is over the judged labels (see `Comparison.judged_labels`) of which a draw has enough cells on both sides: 0
    where there are none. None without a judged label.
    """
    found, judged = _recognised_of_pool(c, [condition]), c.judged_labels(condition)
    if found is None or not judged:
        return None
    labels, correct, _ = found
    names, rates, n_cells = pd.Index(judged), [], []
    for chosen in (c.system, c.reference):
        n_cells.append(_per_label(labels, names, np.ones(len(labels)), chosen))
        rates.append(_per_label(labels, names, correct, chosen) / np.maximum(n_cells[-1], 1.0))
    enough = np.minimum(*n_cells) >= MIN_CELLS_PER_LABEL // 2
    return np.where(enough, np.abs(rates[0] - rates[1]), 0.0).max(axis=1)


def _recognised_of_pool(c: Comparison, conditions: Sequence[str]) -> tuple[np.ndarray, np.ndarray, pd.Index] | None:
    """Find labels and recognition of all cells of the pool, once: 1 if recognised, 0 if not or without a label."""

    def find() -> tuple[np.ndarray, np.ndarray, pd.Index] | None:
        found = recognised(c.fitted, c.pool, conditions)
        if found is None:
            return None
        labels, correct = combined_labels(c.pool, conditions), np.zeros(len(c.pool))
        correct[found[0]] = found[1]
        return labels, correct, pd.Index(sorted(set(labels[found[0]])))

    return c.pool.once(f"recognised, {list(conditions)}", find)


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
                agreement={name: _agreement(found[name], cells[name]) for name in sides},
                depth_ratio={name: _median_ratio(depths[name], depths["real"]) for name in systems},
            )
        )
    return rows


def _agreement(found: tuple[np.ndarray, np.ndarray] | None, cells: Int[np.ndarray, " chosen"]) -> Value | None:
    """Average over the cells with one label whether they are recognised."""
    if found is None or not len(cells):
        return None
    correct = found[1][np.searchsorted(found[0], cells)]
    n, rate = len(correct), float(correct.mean())
    low, high = proportion_interval(int(correct.sum()), n)
    return Value(rate, low, high)


def _per_label(
    labels: np.ndarray, names: pd.Index, values: Float[np.ndarray, " cells"], chosen: Masks
) -> Float[np.ndarray, "rows names"]:
    """Sum a value over the chosen cells of every named label, in every row."""
    at = names.get_indexer(pd.Index(labels))
    cells = np.flatnonzero(at >= 0)
    onto = csr_matrix((values[cells], (cells, at[cells])), shape=(len(labels), len(names)))
    return np.asarray(chosen.astype(np.float64) @ onto)


def proportion_interval(n_found: int, n: int) -> tuple[float, float]:
    """Compute the exact interval (95 %) of a share of independent cells (Clopper and Pearson, 1934)."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, n_found, n - n_found + 1)) if n_found else 0.0
    high = float(beta.ppf(0.975, n_found + 1, n - n_found)) if n_found < n else 1.0
    return low, high


def _median_ratio(depths: Float[np.ndarray, " cells"], real: Float[np.ndarray, " real"]) -> float | None:
    """Divide median library sizes; None without cells on a side, or without counts."""
    if not len(depths) or not len(real) or not np.median(real) > 0:
        return None
    return float(np.median(depths) / np.median(real))

"""Do cells look like the label they carry? Judged by a classifier that was trained on real cells."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.resampling import Estimate, weighted_mean
from scldm.evaluation.values import Value

if TYPE_CHECKING:  # the registry of figures holds classifiers
    from scldm.evaluation.registry import Judge, Side

__all__ = [
    "MIN_CELLS_PER_LABEL",
    "LabelClassifier",
    "LabelFidelity",
    "agreement",
    "combined_labels",
    "label_fidelity",
    "recognised",
    "worst_gap",
]

# The agreement of fewer cells with their label is known to no better than about 0.1, and the fold changes of two random
# halves of them have little in common.
MIN_CELLS_PER_LABEL = 20
COMBINATION = " x "


@dataclass(frozen=True, eq=False)
class LabelClassifier:
    """Multinomial logistic regression on standardised features (L2 penalty, C = 1)."""

    pipeline: Any

    @classmethod
    def fit(cls, features: Float[np.ndarray, "cells features"], labels: np.ndarray) -> LabelClassifier | None:
        """Train on real cells; cells without a label (None) are left out.

        Returns
        -------
        None when fewer than two labels are left, for then there is nothing to tell apart.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        known = _known(labels)
        if len(set(labels[known])) < 2:
            return None
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        with warnings.catch_warnings():
            # a judge that is not fully converged is the same judge for all systems
            warnings.simplefilter("ignore", ConvergenceWarning)
            return cls(pipeline.fit(features[known], labels[known].astype(str)))

    def predict(self, features: Float[np.ndarray, "cells features"]) -> np.ndarray:
        """Say what label every cell looks like."""
        if not len(features):
            return np.zeros(0, dtype=str)
        return np.asarray(self.pipeline.predict(features))


@dataclass(frozen=True)
class LabelFidelity:
    """How well one label, or one combination of labels, is met.

    Attributes
    ----------
    condition
        The obs column; ``"cell_type x phase"`` for the combinations of all judged columns.
    label
        The label; ``"B cell x G1"`` for a combination.
    n_real
        Held-out real cells with it.
    n_generated
        Cells of every system with it.
    rare
        Whether there are fewer than 20 held-out cells: too few to judge.
    agreement
        Share of its cells that the classifier recognises, of the held-out real cells (``real``) and of every system;
        None without cells. All columns of a combination have to be recognised.
    depth_ratio
        For every system, the median library size over that of the real cells with this label; None without cells.
    """

    condition: str
    label: str
    n_real: int
    n_generated: dict[str, int]
    rare: bool
    agreement: dict[str, Value | None]
    depth_ratio: dict[str, float | None]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelFidelity:
        """Rebuild it from ``dataclasses.asdict``."""
        agreement = {system: None if v is None else Value(**v) for system, v in values["agreement"].items()}
        return cls(**{**values, "agreement": agreement})


def recognised(
    judge: Judge, side: Side, conditions: Sequence[str]
) -> tuple[np.ndarray, Float[np.ndarray, " known"]] | None:
    """Find which cells of a side are recognised as what their labels say, in all given columns at once.

    Parameters
    ----------
    judge
        Classifiers, trained in the primary space.
    side
        The cells.
    conditions
        Columns of labels.

    Returns
    -------
    Positions of the cells that have a label in every column, and for each of them 1 if all its labels are
    recognised, else 0; None if a column is missing or has no classifier, or no cell has labels.
    """
    labels = side.cells.labels
    if not conditions or any(c not in judge.classifiers or c not in labels for c in conditions):
        return None
    columns = [labels[c].to_numpy(dtype=object) for c in conditions]
    known = np.flatnonzero(np.logical_and.reduce([_known(column) for column in columns]))
    if not len(known):
        return None
    features = side.features[next(iter(judge.spaces))][known]
    correct = np.ones(len(known), dtype=bool)
    for condition, column in zip(conditions, columns, strict=True):
        correct &= judge.classifiers[condition].predict(features) == column[known].astype(str)
    return known, correct.astype(np.float64)


def combined_labels(side: Side, conditions: Sequence[str]) -> np.ndarray:
    """Give every cell's labels in several columns as one text; None where one is missing, or a whole column."""
    labels = side.cells.labels
    combined = np.full(len(side.cells), None, dtype=object)
    if all(condition in labels for condition in conditions):
        columns = [labels[c].to_numpy(dtype=object) for c in conditions]
        for i in np.flatnonzero(np.logical_and.reduce([_known(column) for column in columns])):
            combined[i] = COMBINATION.join(str(column[i]) for column in columns)
    return combined


def agreement(judge: Judge, real: Side, system: Side, conditions: Sequence[str]) -> Estimate | None:
    """Estimate how many cells are recognised as what their labels say, had every label the share that it has in truth.

    Labels differ in how easily they are recognised, so a system with other shares of them would score higher or lower
    for that alone.

    Parameters
    ----------
    judge
        Classifiers.
    real
        All held-out cells.
    system
        All cells of one system.
    conditions
        Columns of labels, all of which are to be recognised.

    Returns
    -------
    The mean over labels (with several columns: combinations of labels) that both sides have of the share recognised,
    weighted by the number of held-out cells; 0 without such a label, None where `recognised` finds nothing.
    """
    found = recognised(judge, system, conditions)
    if found is None:
        return None
    known, correct = found
    own, expected = combined_labels(system, conditions)[known], combined_labels(real, conditions)
    common = pd.Index(sorted(set(own) & set(expected[_known(expected)])))
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


def worst_gap(judge: Judge, real: Side, system: Side, condition: str) -> Estimate | None:
    """Find the label whose cells are recognised most differently from real ones.

    Parameters
    ----------
    judge
        Classifiers.
    real
        All held-out cells.
    system
        All cells of one system.
    condition
        Column of labels.

    Returns
    -------
    The largest absolute difference in agreement over labels with more than 20 held-out cells and at least 20 cells of
    the system; None without such a label.
    """
    rates = []
    for side, fewest in ((real, MIN_CELLS_PER_LABEL + 1), (system, MIN_CELLS_PER_LABEL)):
        found = recognised(judge, side, [condition])
        if found is None:
            return None
        labels = side.cells.labels[condition].to_numpy(dtype=object)[found[0]]
        rates.append(_rates(labels, found[1], side.weights[:, found[0]], fewest))
    common = [label for label in rates[0] if label in rates[1]]
    if not common:
        return None
    gaps = np.max([np.abs(rates[0][label] - rates[1][label]) for label in common], axis=0)
    return Estimate(float(gaps[0]), gaps[1:])


def label_fidelity(
    judge: Judge, real: Side, systems: Mapping[str, Side], conditions: Sequence[str]
) -> tuple[LabelFidelity, ...]:
    """Judge every label of every condition, and every combination of labels when there are several conditions.

    Parameters
    ----------
    judge
        Classifiers; a condition without one (a single label) is left out.
    real
        All held-out real cells.
    systems
        All cells of every system.
    conditions
        The judged columns.

    Returns
    -------
    Label by label, the most frequent among real cells first; labels that only a system has come last.
    """
    judged = [condition for condition in conditions if condition in judge.classifiers]
    groups = [[condition] for condition in judged] + ([judged] if len(judged) > 1 else [])
    return tuple(row for group in groups for row in _judge_group(judge, real, systems, group))


def _judge_group(
    judge: Judge, real: Side, systems: Mapping[str, Side], conditions: Sequence[str]
) -> list[LabelFidelity]:
    """Judge the labels of one column, or the combinations of several."""
    sides = {"real": real, **systems}
    labels = {name: combined_labels(side, conditions) for name, side in sides.items()}
    found = {name: recognised(judge, side, conditions) for name, side in sides.items()}
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
    return Value.of(weighted_mean(correct, side.weights[:, cells]))


def _per_label(
    labels: np.ndarray,
    chosen: pd.Index,
    values: Float[np.ndarray, " cells"],
    weights: Float[np.ndarray, "resamples cells"],
) -> Float[np.ndarray, "resamples+1 chosen"]:
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


def _rates(
    labels: np.ndarray, correct: Float[np.ndarray, " cells"], weights: Float[np.ndarray, "resamples cells"], fewest: int
) -> dict[str, Float[np.ndarray, " rows"]]:
    """Compute for every label with enough cells the share recognised: of the cells as they are, then per resample."""
    rates = {}
    for label, n_cells in Counter(labels).items():
        if n_cells >= fewest:
            cells = np.flatnonzero(labels == label)
            estimate = weighted_mean(correct[cells], weights[:, cells])
            assert estimate.replicates is not None
            rates[label] = np.append(estimate.value, estimate.replicates)
    return rates


def _known(labels: np.ndarray) -> Bool[np.ndarray, " cells"]:
    """Find the cells that have a label."""
    return np.array([label is not None for label in labels], dtype=bool)

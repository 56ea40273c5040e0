"""Labels of cells: which are frequent enough to judge, the classifier that recognises them, and how each is met."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from scldm.evaluation.records import Value

__all__ = [
    "COMBINATION",
    "MIN_CELLS_PER_LABEL",
    "MIN_SYSTEM_CELLS",
    "LabelFidelity",
    "fit_classifier",
    "frequent_labels",
    "joint_labels",
    "known_labels",
]

# The agreement of fewer cells with their label is known to no better than about 0.1, and the fold changes of two random
# halves of them have little in common.
MIN_CELLS_PER_LABEL = 20
# With fewer cells of a label a system has missed it.
MIN_SYSTEM_CELLS = 5
#: Between the labels of several conditions.
COMBINATION = " x "


def known_labels(labels: np.ndarray) -> Bool[np.ndarray, " cells"]:
    """Find the cells that have a label, which is not None."""
    return np.array([label is not None for label in labels], dtype=bool)


def frequent_labels(labels: np.ndarray, min_cells: int = MIN_CELLS_PER_LABEL) -> list[str]:
    """List the labels that have enough cells, in alphabetical order."""
    names, counts = np.unique(labels[known_labels(labels)].astype(str), return_counts=True)
    return [str(name) for name in names[counts >= min_cells]]


def joint_labels(labels: pd.DataFrame) -> Int[np.ndarray, " cells"]:
    """Give the combinations of labels that occur a number each; a missing label is a label.

    The columns of the labels are conditions; without any, all cells have the same code. Codes are 0 ..
    combinations - 1, in the order of the sorted combinations.
    """
    if not len(labels.columns):
        return np.zeros(len(labels), dtype=np.int64)
    return labels.groupby(list(labels.columns), dropna=False, observed=True).ngroup().to_numpy(dtype=np.int64)


def fit_classifier(features: Float[np.ndarray, "cells features"], labels: np.ndarray) -> Any:
    """Train a multinomial logistic regression (L2 penalty, C = 1) on standardised features of real cells.

    Cells without a label (None) are left out. Gives a pipeline of scikit-learn, or None when fewer than two labels are
    left, for then there is nothing to tell apart.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = known_labels(labels)
    if len(set(labels[known])) < 2:
        return None
    with warnings.catch_warnings():
        # a classifier that is not fully converged is the same for all systems
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        return pipeline.fit(features[known], labels[known].astype(str))


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

    def p_value(self, system: str) -> float | None:
        """Compute how often the agreement of real cells would differ as much from that of the held-out ones.

        By Fisher's exact test of the two shares of recognised cells; None where one of them has no cells.
        """
        from scipy.stats import fisher_exact

        own, real = self.agreement.get(system), self.agreement.get("real")
        if own is None or real is None:
            return None
        shares = ((own.value, self.n_generated[system]), (real.value, self.n_real))
        found = [(round(share * n), n) for share, n in shares]
        return float(fisher_exact([[n_recognised, n - n_recognised] for n_recognised, n in found])[1])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelFidelity:
        """Rebuild it from ``dataclasses.asdict``."""
        agreement = {system: None if v is None else Value(**v) for system, v in values["agreement"].items()}
        return cls(**{**values, "agreement": agreement})

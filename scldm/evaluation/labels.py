"""Do cells look like the label they carry? Judged by a classifier that was trained on real cells."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["LabelClassifier"]


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

        known = np.array([label is not None for label in labels], dtype=bool)
        if len(set(labels[known])) < 2:
            return None
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        with warnings.catch_warnings():
            # a judge that is not fully converged is the same judge for all systems
            warnings.simplefilter("ignore", ConvergenceWarning)
            return cls(pipeline.fit(features[known], labels[known].astype(str)))

    def accuracy(self, features: Float[np.ndarray, "cells features"], labels: np.ndarray) -> float | None:
        """Compute the share of cells that are recognised as what their label says; None without any label."""
        known = np.array([label is not None for label in labels], dtype=bool)
        if not known.any():
            return None
        return float((self.pipeline.predict(features[known]) == labels[known].astype(str)).mean())

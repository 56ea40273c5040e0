"""All attributes that a model knows: fitted together, encoded and decoded together, categorical ones first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int, Int64

from scldm.data.attributes import CategoricalAttribute, ContinuousAttribute
from scldm.errors import UserError, nearest_names

__all__ = ["AttributeSet", "check_column", "check_labelled"]


@dataclass(frozen=True)
class AttributeSet:
    """Categorical and continuous attributes, each kind in an order of its own.

    Attributes
    ----------
    categorical, continuous
        The attributes; everywhere the categorical ones come first.
    """

    categorical: tuple[CategoricalAttribute, ...]
    continuous: tuple[ContinuousAttribute, ...]

    @classmethod
    def fit(
        cls, obs: pd.DataFrame, categorical: tuple[str, ...], continuous: tuple[str, ...], missing_labels: str
    ) -> AttributeSet:
        """Collect the attributes of training cells.

        Parameters
        ----------
        obs
            One row per cell with at least the columns named next.
        categorical, continuous
            Names of the ``obs`` columns to condition on.
        missing_labels
            ``"error"`` refuses cells without a label or value; ``"unlabelled"`` keeps them.

        Raises
        ------
        UserError
            If a column is missing, named twice, incompletely labelled, or of the wrong kind.
        """
        names = categorical + continuous
        for name in names:
            if name in categorical and name in continuous:
                raise UserError(f"obs column '{name}' is named as categorical and as continuous; choose one")
            if names.count(name) > 1:
                raise UserError(f"obs column '{name}' is named twice")
            check_column(obs, name)
            if missing_labels == "error":
                check_labelled(obs[name], name)
        return cls(
            tuple(CategoricalAttribute.fit(obs[name], name) for name in categorical),
            tuple(ContinuousAttribute.fit(obs[name], name) for name in continuous),
        )

    @property
    def categorical_names(self) -> tuple[str, ...]:
        """Names of the categorical attributes."""
        return tuple(attribute.name for attribute in self.categorical)

    @property
    def continuous_names(self) -> tuple[str, ...]:
        """Names of the continuous attributes."""
        return tuple(attribute.name for attribute in self.continuous)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all attributes, categorical first."""
        return self.categorical_names + self.continuous_names

    def encode(
        self, obs: pd.DataFrame, *, unknown: str = "error"
    ) -> tuple[Int64[np.ndarray, "cells n_categorical"], Float32[np.ndarray, "cells n_continuous"]]:
        """Turn attributes into numbers.

        Parameters
        ----------
        obs
            One row per cell; columns are attributes, not necessarily all of them.
        unknown
            ``"error"`` raises ``UserError`` for a label that the training data did not have; ``"unlabelled"`` drops it.

        Returns
        -------
        categorical
            Category codes, -1 where the attribute is absent or missing.
        continuous
            Standardised values, NaN where the attribute is absent or missing.

        Raises
        ------
        UserError
            For a column that is not an attribute, or a label that is not one of its categories.
        """
        for column in obs.columns:
            if column not in self.names:
                known = nearest_names(column, self.names) if self.names else "the model has no attributes"
                raise UserError(f"unknown attribute '{column}'; {known}")
        codes = np.full((len(obs), len(self.categorical)), -1, dtype=np.int64)
        values = np.full((len(obs), len(self.continuous)), np.nan, dtype=np.float32)
        for i, label in enumerate(self.categorical):
            if label.name in obs:
                codes[:, i] = label.encode(obs[label.name], unknown=unknown)
        for i, measure in enumerate(self.continuous):
            if measure.name in obs:
                values[:, i] = measure.encode(obs[measure.name])
        return codes, values

    def decode(
        self,
        categorical: Int[np.ndarray, "cells n_categorical"],
        continuous: Float[np.ndarray, "cells n_continuous"],
    ) -> pd.DataFrame:
        """Turn numbers back into a table of all attributes; categorical columns carry all training categories."""
        columns: dict[str, Any] = {}
        for i, label in enumerate(self.categorical):
            columns[label.name] = label.decode(categorical[:, i])
        for i, measure in enumerate(self.continuous):
            columns[measure.name] = measure.decode(continuous[:, i])
        return pd.DataFrame(columns, index=pd.RangeIndex(len(categorical)))


def check_column(obs: pd.DataFrame, name: str) -> None:
    """Raise ``UserError`` if a column is not there."""
    if name not in obs.columns:
        help_ = nearest_names(name, obs.columns) if len(obs.columns) else "obs has no columns"
        raise UserError(f"there is no obs column '{name}'; {help_}")


def check_labelled(column: pd.Series, name: str) -> None:
    """Raise ``UserError`` if a cell has no label."""
    n_missing = int(column.isna().sum())
    if n_missing:
        raise UserError(
            f"obs column '{name}' is missing for {n_missing} of {len(column)} cells; remove these cells, or train on "
            "them as unlabelled (data.missing_labels: unlabelled)"
        )

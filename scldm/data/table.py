"""What is known of the cells of a file besides their counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from scldm.data.attribute_set import AttributeSet, check_column, check_labelled
from scldm.data.attributes import numbers
from scldm.errors import UserError, nearest_names

__all__ = ["CellTable"]


@dataclass(frozen=True, eq=False)
class CellTable:
    """Attributes of cells, as the file has them and as numbers.

    Attributes
    ----------
    attributes
        What the columns mean.
    categorical
        Category codes, -1 where a cell is unlabelled.
    continuous
        Standardised values, NaN where a cell has none.
    obs
        Attributes as labels and numbers, and the further columns that were asked for; indexed by cell name.
    """

    attributes: AttributeSet
    categorical: Int64[np.ndarray, "cells n_categorical"]
    continuous: Float32[np.ndarray, "cells n_continuous"]
    obs: pd.DataFrame

    @classmethod
    def read(
        cls,
        obs: pd.DataFrame,
        categorical: tuple[str, ...] = (),
        continuous: tuple[str, ...] = (),
        missing_labels: str = "error",
        keep_columns: tuple[str, ...] = (),
        attributes: AttributeSet | None = None,
    ) -> CellTable:
        """Read the attributes of cells from the ``obs`` of their file.

        Parameters
        ----------
        obs
            One row per cell.
        categorical, continuous
            Names of the columns to condition on. With ``attributes``, all of these are read, and the names are only
            held against them.
        missing_labels
            ``"error"`` refuses cells without a label, or with one that ``attributes`` does not know; ``"unlabelled"``
            keeps them without that attribute.
        keep_columns
            Further columns to keep as they are.
        attributes
            Those of a model; None fits them to these cells.

        Raises
        ------
        UserError
            For a name that is not an attribute, and for columns and labels that are not as they have to be.
        """
        for name in keep_columns:
            check_column(obs, name)
        if attributes is None:
            attributes = AttributeSet.fit(obs, categorical, continuous, missing_labels)
        else:
            _check_attributes(obs, attributes, categorical, continuous, missing_labels)
        present = [name for name in attributes.names if name in obs.columns]
        codes, values = attributes.encode(obs[present], unknown=missing_labels)
        labels = attributes.decode(codes, values)
        labels.index = pd.Index(obs.index.astype(str), name=None)
        for name in attributes.continuous_names:
            # The column itself, not the float32 that a round trip through standardised values leaves of it.
            if name in obs.columns:
                labels[name] = numbers(obs[name], name)
        for name in keep_columns:
            if name not in labels:
                labels[name] = obs[name].array
        return cls(attributes, codes, values, labels)


def _check_attributes(
    obs: pd.DataFrame,
    attributes: AttributeSet,
    categorical: tuple[str, ...],
    continuous: tuple[str, ...],
    missing_labels: str,
) -> None:
    for names, allowed in ((categorical, attributes.categorical_names), (continuous, attributes.continuous_names)):
        for name in set(names) - set(allowed):
            raise UserError(f"'{name}' is not an attribute of the model; {nearest_names(name, attributes.names)}")
    if missing_labels == "error":
        for name in attributes.names:
            check_column(obs, name)
            check_labelled(obs[name], name)

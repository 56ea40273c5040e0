"""What a request says of its cells, read and checked against the schema: attributes, depths, genes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from scldm.data.counts import LARGEST_EXACT_COUNT
from scldm.data.schema import ContinuousAttribute, DatasetSchema, as_names
from scldm.errors import UserError, nearest_names
from scldm.prior.guidance import Guidance

__all__ = [
    "Conditions",
    "check_guidance",
    "conditions_table",
    "depths_of",
    "gene_positions",
    "warn_out_of_range",
    "warn_unobserved",
]

#: What a condition may be: one value for all cells, or one per cell.
Conditions = Mapping[str, Any] | pd.DataFrame


def conditions_table(
    schema: DatasetSchema, conditions: Conditions | None, n_cells: int | None, depth: object
) -> pd.DataFrame:
    """Lay the attributes that are asked for out as a table of one row per cell.

    Parameters
    ----------
    schema
        Of the model.
    conditions
        One value for all cells, or one per cell, for each attribute asked for.
    n_cells
        Number of cells; None takes the length of what is given per cell.
    depth
        What is asked for as depth; only its length matters here.

    Raises
    ------
    UserError
        If an attribute is unknown, a value is missing, or lengths differ.
    """
    columns = {} if conditions is None else {str(name): value for name, value in conditions.items()}
    lengths = {}
    for name, value in columns.items():
        if name not in schema.attribute_names:
            raise UserError(f"unknown attribute '{name}'; {_attribute_help(schema, name)}")
        if not np.isscalar(value) and value is not None:
            lengths[f"the values of '{name}'"] = len(value)
    if depth is not None and not np.isscalar(depth):
        lengths["the depths"] = len(depth)  # type: ignore[arg-type]
    for what, length in lengths.items():
        if n_cells is None:
            n_cells = length
        if length != n_cells:
            raise UserError(f"{what} are {length}, but {n_cells} cells are asked for; give one value, or one per cell.")
    if n_cells is None:
        raise UserError("how many cells? Give n_cells, or conditions with one value per cell.")
    if n_cells < 0:
        raise UserError(f"n_cells is {n_cells}; ask for at least one cell.")
    index = pd.RangeIndex(n_cells)
    values = {
        name: pd.Series([value] * n_cells if np.isscalar(value) or value is None else np.asarray(value), index=index)
        for name, value in columns.items()
    }
    for name, series in values.items():
        if series.isna().any():
            raise UserError(
                f"{int(series.isna().sum())} values of '{name}' are missing; leave the attribute out instead."
            )
    for measure in schema.continuous:
        if measure.name in values:
            _check_numbers(values[measure.name], measure)
    return pd.DataFrame(values, index=index)


def _check_numbers(column: pd.Series, measure: ContinuousAttribute) -> None:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isnan(values).any():
        raise UserError(
            f"'{measure.name}' holds '{column[np.isnan(values)].iloc[0]}', which is not a number; training cells have "
            f"{measure.minimum:g} to {measure.maximum:g}."
        )
    if np.isinf(values).any():
        raise UserError(
            f"'{measure.name}' holds {int(np.isinf(values).sum())} infinite values; training cells have "
            f"{measure.minimum:g} to {measure.maximum:g}."
        )


def check_guidance(guidance: Guidance, given: tuple[str, ...]) -> None:
    """Refuse a scale without effect: it is a misunderstanding, not a default."""
    scales = guidance.to_dict()["scales"]
    if not isinstance(scales, dict):
        if scales != 1 and not given:
            raise UserError(
                f"guidance is {scales}, but there is nothing to guide by; ask for the value of an attribute."
            )
        return
    for name in scales:
        if name not in given:
            raise UserError(f"guidance is set for '{name}', but no value of '{name}' is asked for.")


def _attribute_help(schema: DatasetSchema, name: str) -> str:
    if not schema.attribute_names:
        return "the model was trained without attributes."
    return nearest_names(name, schema.attribute_names)


def depths_of(depth: Any, n_cells: int) -> Float32[np.ndarray, " cells"] | None:
    """Return the library size (UMI) of every cell; raises ``UserError`` for one that no cell can have."""
    if depth is None:
        return None
    try:
        values = np.broadcast_to(np.asarray(depth, dtype=np.float32), (n_cells,)).copy()
    except ValueError:
        raise UserError(f"depth is {depth!r}; give a number of UMI, or one per cell.") from None
    possible = np.isfinite(values) & (values >= 1)
    if not possible.all():
        raise UserError(f"depth is {values[~possible][0]:g}; it must be a finite number of UMI, at least 1.")
    if (values > LARGEST_EXACT_COUNT).any():
        raise UserError(f"depth is {values.max():g}; it must be at most {LARGEST_EXACT_COUNT:,} UMI.")
    return values


def gene_positions(schema: DatasetSchema, genes: Sequence[str] | None) -> Int64[np.ndarray, " genes"] | None:
    """Find genes in the schema; raises ``UserError`` for an empty list, an unknown gene, or one that is named twice."""
    if genes is None:
        return None
    names = list(as_names(genes))
    if not names:
        raise UserError("the list of genes is empty.")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"gene '{repeated}' is listed more than once.")
    return schema.gene_index(names)


def warn_unobserved(schema: DatasetSchema, categorical: Int64[np.ndarray, "cells n_categorical"]) -> None:
    """Warn, once, of combinations of categories that no training cell had."""
    if not categorical.size:
        return
    combinations = np.unique(categorical, axis=0)
    unseen = combinations[~schema.observed(combinations)]
    if not len(unseen):
        return
    labels = [
        " + ".join(
            f"{a.name}='{a.categories[code]}'" for a, code in zip(schema.categorical, row, strict=True) if code >= 0
        )
        for row in unseen[:3]
    ]
    more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
    warnings.warn(
        f"never observed together in the training data: {'; '.join(labels)}{more}. The model extrapolates.",
        UserWarning,
        stacklevel=4,
    )


def warn_out_of_range(
    schema: DatasetSchema, continuous: Float32[np.ndarray, "cells n_continuous"], depth: np.ndarray | None
) -> None:
    """Warn, once, of numbers and depths outside the range of the training cells."""
    asked = [
        (f"'{measure.name}'", measure.decode(continuous[:, k]), measure.minimum, measure.maximum)
        for k, measure in enumerate(schema.continuous)
    ]
    if depth is not None:
        asked.append(("depth", depth, schema.depth.minimum, schema.depth.maximum))
    found = []
    for name, values, low, high in asked:
        # Standardised values are float32: an end of the range comes back with a rounding error.
        slack = 1e-5 * max(abs(low), abs(high))
        outside = values[(values < low - slack) | (values > high + slack)]
        if len(outside):
            found.append(
                f"{name} in {len(outside)} of {len(values)} cells, such as {outside[0]:g} ({low:g} to {high:g})"
            )
    if found:
        warnings.warn(
            f"outside the range of the training data: {'; '.join(found)}. The model extrapolates.",
            UserWarning,
            stacklevel=4,
        )

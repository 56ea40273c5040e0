"""What a request says of its cells, read and checked against the schema: attributes, depths, genes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
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

#: What one request may be of: its attributes and depths are laid out in memory.
MAX_CELLS = 100_000_000

#: The largest one that a column can hold.
LARGEST_INTEGER = 2**63 - 1

#: What a condition may be: one value for all cells, or one per cell.
Conditions = Mapping[str, Any] | pd.DataFrame


def conditions_table(
    schema: DatasetSchema, conditions: Conditions | None, n_cells: int | None, depths: np.ndarray | None
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
    depths
        Of :func:`depths_of`; only their number matters here.

    Raises
    ------
    UserError
        If an attribute is unknown, has no value for any cell, or lengths differ.

    Warns
    -----
    UserWarning
        If an attribute has no value for some of the cells; there it is left to the model.
    """
    if conditions is not None and not isinstance(conditions, Mapping | pd.DataFrame):
        raise UserError(f"conditions are {conditions!r}; give a mapping of attributes to values, or a table of them.")
    columns: dict[str, Any] = {}
    lengths = {}
    for name, value in () if conditions is None else conditions.items():
        if str(name) not in schema.attribute_names:
            raise UserError(f"unknown attribute '{name}'; {_attribute_help(schema, str(name))}")
        columns[str(name)], is_per_cell = _read_values(value, f"the values of '{name}'")
        if is_per_cell:
            lengths[f"the values of '{name}'"] = len(columns[str(name)])
    if depths is not None and depths.ndim:
        lengths["the depths"] = len(depths)
    for what, length in lengths.items():
        if n_cells is None:
            n_cells = length
        if length != n_cells:
            raise UserError(f"{what} are {length}, but {n_cells} cells are asked for; give one value, or one per cell.")
    if n_cells is None:
        raise UserError("how many cells? Give n_cells, or conditions with one value per cell.")
    if not 0 < n_cells <= MAX_CELLS:
        raise UserError(f"n_cells is {n_cells}; ask for 1 to {MAX_CELLS:,} cells.")
    index = pd.RangeIndex(n_cells)
    values = {
        name: value.set_axis(index) if isinstance(value, pd.Series) else pd.Series([value] * n_cells, index=index)
        for name, value in columns.items()
    }
    for name, series in values.items():
        n_missing = int(series.isna().sum())
        if n_missing and n_missing == len(series):
            raise UserError(
                f"'{name}' is asked for, but it is missing for every cell; leave the attribute out instead."
            )
        if n_missing:
            warnings.warn(
                f"'{name}' is missing for {n_missing} of {len(series)} cells; there the model chooses it.",
                UserWarning,
                stacklevel=4,
            )
    for measure in schema.continuous:
        if measure.name in values:
            _check_numbers(values[measure.name], measure)
    return pd.DataFrame(values, index=index)


def _read_values(value: Any, what: str) -> tuple[Any, bool]:
    """Read one value, or one per cell (a series); raises ``UserError`` for what has no order, or too much of it."""
    if not pd.api.types.is_list_like(value):
        is_array = np.shape(value) == () and hasattr(value, "item") and not isinstance(value, np.generic)
        value = value.item() if is_array else value
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise UserError(
                f"{what} are {str(value)[:20]}..., a number of {len(str(value))} digits; that is too large."
            )
        return value, False
    if isinstance(value, Mapping | Set):
        kind = type(value).__name__
        raise UserError(f"{what} are a {kind}, which does not say which cell has which; give one value, or a list.")
    if isinstance(value, Iterator):
        value = list(value)
    shape = np.shape(value) if hasattr(value, "shape") else (len(value),)
    if len(shape) != 1:
        raise UserError(f"{what} have the shape {shape}; give one value, or a list of one per cell.")
    try:
        return pd.Series(value).reset_index(drop=True), True
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{what} cannot be read as a list of one per cell ({error}).") from error


def _check_numbers(column: pd.Series, measure: ContinuousAttribute) -> None:
    if pd.api.types.is_complex_dtype(column.dtype):
        return  # refused where it is encoded
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    unreadable = np.isnan(values) & column.notna().to_numpy()
    if unreadable.any():
        raise UserError(
            f"'{measure.name}' holds '{column[unreadable].iloc[0]}', which is not a number; training cells have "
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


def depths_of(depth: Any) -> np.ndarray | None:
    """Read library sizes (UMI) as float32, one or one per cell; raises ``UserError`` for one that no cell can have."""
    if depth is None:
        return None
    asked, is_per_cell = _read_values(depth, "the depths")
    column = asked if is_per_cell else pd.Series([asked])
    try:
        if pd.api.types.infer_dtype(column, skipna=True) in ("boolean", "complex"):
            raise TypeError("no number")
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise UserError(f"depth is {depth!r}; give a number of UMI, or one per cell.") from None
    possible = np.isfinite(values) & (values >= 1)
    if not possible.all():
        raise UserError(f"depth is {values[~possible][0]:g}; it must be a finite number of UMI, at least 1.")
    if (values > LARGEST_EXACT_COUNT).any():
        raise UserError(f"depth is {values.max():g}; it must be at most {LARGEST_EXACT_COUNT:,} UMI.")
    return values.astype(np.float32).reshape(-1 if is_per_cell else ())


def gene_positions(schema: DatasetSchema, genes: Sequence[str] | None) -> Int64[np.ndarray, " genes"] | None:
    """Find genes in the schema; raises ``UserError`` for an empty list, an unknown gene, or one that is named twice."""
    if genes is None:
        return None
    if isinstance(genes, Mapping | Set):
        raise UserError(f"the genes are a {type(genes).__name__}, which has no order; give a list.")
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

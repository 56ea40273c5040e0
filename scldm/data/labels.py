"""From a column of any type to labels: the one spelling that the model, the judge, splits and requests share."""

from __future__ import annotations

import numbers

import numpy as np
import pandas as pd
from jaxtyping import Int64

from scldm.errors import UserError

__all__ = ["as_labels", "factorize_labels", "label_of", "match_numbers"]

# A whole number with more digits than a float has is not what anyone typed.
_LONGEST_WHOLE_FLOAT = 1e16


def label_of(value: object) -> str:
    """Spell one value as a label.

    ``2`` and ``2.0`` are ``"2"``; a float is the shortest number that reads back as the same value in its own
    precision, so that a float32 of 0.1 is ``"0.1"``; bytes are UTF-8, and what is none shows as an escape.
    """
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, float | np.floating):
        number = float(value)
        if number.is_integer() and abs(number) < _LONGEST_WHOLE_FLOAT:
            return str(int(number))
    return str(value)


def factorize_labels(column: pd.Series) -> tuple[Int64[np.ndarray, " cells"], list[str]]:
    """Turn a column into codes and labels.

    Parameters
    ----------
    column
        Of any type.

    Returns
    -------
    codes
        Position of every cell's label, -1 where it is missing.
    labels
        In the order of a category column, of numbers by value, otherwise sorted. Values that are spelled alike, as 1
        and "1" are, are one label. Categories that no cell has are among them.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
        labels = _spelled(values)
        order = np.arange(len(labels))
    else:
        try:
            codes, values = pd.factorize(column)
        except TypeError as error:
            raise UserError(f"column '{column.name}' holds values that are no labels ({error})") from error
        labels = _spelled(values)
        is_number = pd.api.types.is_numeric_dtype(values.dtype)
        order = np.argsort(np.asarray(values, dtype=np.float64) if is_number else np.asarray(labels), kind="stable")
    position = {label: i for i, label in enumerate(dict.fromkeys(labels[i] for i in order))}
    # One more entry, so that the code -1 of a missing label stays -1.
    recode = np.array([position[label] for label in labels] + [-1], dtype=np.int64)
    return recode[codes], list(position)


def as_labels(column: pd.Series) -> np.ndarray:
    """Return the label of every cell as text, None where it is missing."""
    codes, labels = factorize_labels(column)
    return np.array([*labels, None], dtype=object)[codes]


def match_numbers(column: pd.Series, labels: list[str], categories: tuple[str, ...]) -> Int64[np.ndarray, " labels"]:
    """Find the categories that mean the numbers of a column, however they are spelled.

    Parameters
    ----------
    column
        Where the labels are from; only one of numbers can match.
    labels
        Its labels.
    categories
        Labels of a model, or of another column.

    Returns
    -------
    For every label the position of the one category with the same value, in float64 or else in float32; -1 if there is
    none or more than one.
    """
    found = np.full(len(labels), -1, dtype=np.int64)
    if not _holds_numbers(column):
        return found
    own, known = (
        pd.to_numeric(pd.Series(list(texts), dtype=object), errors="coerce") for texts in (labels, categories)
    )
    for precision in (np.float64, np.float32):
        with np.errstate(over="ignore"):
            mine, theirs = own.to_numpy(precision), known.to_numpy(precision)
        for i in np.flatnonzero(found < 0):
            equal = np.flatnonzero(theirs == mine[i])
            if len(equal) == 1:
                found[i] = equal[0]
    return found


def _holds_numbers(column: pd.Series) -> bool:
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if pd.api.types.is_bool_dtype(values.dtype):
        return False
    if pd.api.types.is_numeric_dtype(values.dtype):
        return True
    return values.dtype == object and any(
        isinstance(v, numbers.Real) and not isinstance(v, bool | np.bool_) for v in values[:1]
    )


def _spelled(values: pd.Index | np.ndarray) -> list[str]:
    # Not by iterating over the index: that makes Python floats of float32, with digits that nobody wrote.
    return [label_of(value) for value in np.asarray(values)]

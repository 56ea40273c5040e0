"""From a column of any type to labels: the one spelling that the model, the judge, splits and requests share."""

from __future__ import annotations

import datetime
import enum
import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from scldm.errors import UserError

__all__ = ["as_labels", "factorize_labels", "holds_numbers", "label_of", "match_numbers", "spelled_like"]

# A whole number with more digits than a float has is not what anyone typed.
_LONGEST_WHOLE_FLOAT = 1e16

# Text that is a number and nothing else: "01" and "1_0" are names, "nan" and "inf" are words.
_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]+)?|[+-]?\.[0-9]+", re.ASCII)


def label_of(value: object) -> str:
    """Spell one value as a label.

    ``2`` and ``2.0`` are ``"2"``; a float is the shortest number that reads back as the same value in its own
    precision, so that a float32 of 0.1 is ``"0.1"``; bytes are UTF-8, and what is none shows as an escape; a member of
    an enumeration is its value; a time at midnight is its date, and a length of whole days is so many days.

    Raises
    ------
    TypeError
        For a list, a set and other values that name nothing.
    """
    if isinstance(value, enum.Enum):
        return label_of(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, float | np.floating):
        number = float(value)
        if number.is_integer() and abs(number) < _LONGEST_WHOLE_FLOAT:
            return str(int(number))
        return str(number if isinstance(value, np.longdouble) else value)
    if isinstance(value, datetime.datetime | np.datetime64):
        return str(pd.Timestamp(value)).removesuffix(" 00:00:00")
    if isinstance(value, datetime.timedelta | np.timedelta64):
        return str(pd.Timedelta(value)).removesuffix(" 00:00:00")
    if pd.api.types.is_list_like(value):
        raise TypeError(f"a {type(value).__name__} names nothing")
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

    Raises
    ------
    UserError
        For values that are no labels, such as lists.
    """
    try:
        return _factorize(column)
    except (TypeError, ValueError) as error:
        raise UserError(f"column '{column.name}' holds values that are no labels ({error})") from error


def _factorize(column: pd.Series) -> tuple[Int64[np.ndarray, " cells"], list[str]]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
        labels = _spelled(values)
        order = np.arange(len(labels))
    else:
        if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) != "string":
            # Spelled one by one: to a hash table True, 1 and 1.0 would be one value.
            column = column.astype(object).where(column.isna(), [label_of(value) for value in column])
        codes, values = pd.factorize(column)
        if column.dtype == np.float16:
            # pandas counts them in float32, whose digits nobody wrote
            values = np.asarray(values, dtype=np.float16)  # type: ignore[assignment]
        labels = _spelled(values)
        is_number = _is_real(values.dtype)
        order = np.argsort(np.asarray(values, dtype=np.float64) if is_number else np.asarray(labels), kind="stable")
    position = {label: i for i, label in enumerate(dict.fromkeys(labels[i] for i in order))}
    # One more entry, so that the code -1 of a missing label stays -1.
    recode = np.array([position[label] for label in labels] + [-1], dtype=np.int64)
    return recode[codes], list(position)


def as_labels(column: pd.Series) -> np.ndarray:
    """Return the label of every cell as text, None where it is missing."""
    codes, labels = factorize_labels(column)
    return np.array([*labels, None], dtype=object)[codes]


def match_numbers(
    labels: list[str], categories: Sequence[str], *, from_numbers: bool = False
) -> Int64[np.ndarray, " labels"]:
    """Find the categories that mean the same numbers as some labels, however either is spelled.

    Parameters
    ----------
    labels
        Text of any kind.
    categories
        Labels of a model, or of another column.
    from_numbers
        Whether the labels are those of a column of numbers. Labels that were text are held against categories only if
        all of these are numbers: ``"01"`` is a name, and not another spelling of ``"1"``.

    Returns
    -------
    For every label the position of the one category with the same value, in float64 or else in float32; -1 if there is
    none or more than one.
    """
    found = np.full(len(labels), -1, dtype=np.int64)
    if not from_numbers and not all(map(_NUMBER.fullmatch, categories)):
        return found
    mine, theirs = (
        pd.to_numeric(
            pd.Series([text if from_numbers or _NUMBER.fullmatch(text) else None for text in texts], dtype=object),
            errors="coerce",
        )
        for texts in (labels, categories)
    )
    for precision in (np.float64, np.float32):
        with np.errstate(over="ignore"):
            asked, known = mine.to_numpy(precision), theirs.to_numpy(precision)
        for i in np.flatnonzero(found < 0):
            equal = np.flatnonzero(known == asked[i])
            if len(equal) == 1:
                found[i] = equal[0]
    return found


def holds_numbers(column: pd.Series) -> bool:
    """Whether the labels of a column are those of real numbers, and not text or truth values."""
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if _is_real(values.dtype):
        return True
    return values.dtype == object and any(
        isinstance(v, numbers.Real) and not isinstance(v, bool | np.bool_) for v in values[:1]
    )


def spelled_like(labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Give labels (None where one is missing) the spelling that another file has for the same numbers."""
    known = sorted(set(reference) - {None})
    strange = sorted(set(labels) - {None, *known})
    matched = zip(strange, match_numbers(strange, known), strict=True)
    spelling = {label: known[i] for label, i in matched if i >= 0}
    return np.array([spelling.get(label, label) for label in labels], dtype=object) if spelling else labels


def _is_real(dtype: Any) -> bool:
    types = pd.api.types
    return types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype) and not types.is_complex_dtype(dtype)


def _spelled(values: pd.Index | np.ndarray) -> list[str]:
    # Not by iterating over an index of numbers: that makes Python floats of float32, with digits that nobody wrote.
    return [label_of(value) for value in np.asarray(values)]

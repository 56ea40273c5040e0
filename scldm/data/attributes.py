"""What the model is conditioned on: categorical and continuous columns of ``obs``, and their numeric codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Float64, Int, Int64

from scldm.data.labels import factorize_labels, holds_numbers, match_numbers
from scldm.errors import UserError, nearest_names

__all__ = ["CategoricalAttribute", "ContinuousAttribute"]

# A column of numbers with more distinct values than this measures something instead of naming groups.
MAX_DISTINCT_FRACTIONAL = 20
MAX_DISTINCT_INTEGER = 100


@dataclass(frozen=True)
class CategoricalAttribute:
    """A label with finitely many values.

    Labels are text whatever the column held: ``True`` is ``"True"``, and ``2`` and ``2.0`` are ``"2"``.

    Attributes
    ----------
    name
        Name of the ``obs`` column.
    categories
        Labels in the order of their codes: the order of a category column, otherwise sorted.
    counts
        Training cells with each label, all above zero.
    """

    name: str
    categories: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def fit(cls, column: pd.Series, name: str) -> CategoricalAttribute:
        """Collect the labels of training cells; raises ``UserError`` for a column of measurements or of cell names."""
        codes, labels = factorize_labels(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(labels))
        used = [(label, int(count)) for label, count in zip(labels, counts, strict=True) if count > 0]
        if not used:
            raise UserError(f"obs column '{name}' has no label for any cell")
        attribute = cls(name, tuple(label for label, _ in used), tuple(count for _, count in used))
        attribute._check_is_grouping(column)
        return attribute

    def encode(self, column: pd.Series, *, unknown: str = "error") -> Int64[np.ndarray, " cells"]:
        """Return the code of every cell, -1 where the label is missing.

        Parameters
        ----------
        column
            Labels of cells.
        unknown
            ``"error"`` raises ``UserError`` for a label that the training data did not have; ``"unlabelled"`` gives -1.
        """
        codes, labels = factorize_labels(column)
        known = pd.Index(self.categories, dtype=object).get_indexer(pd.Index(labels, dtype=object))
        known = np.where(known < 0, match_numbers(labels, self.categories, from_numbers=holds_numbers(column)), known)
        if unknown == "error":
            used = np.bincount(codes[codes >= 0], minlength=len(labels)) > 0
            for label, code, is_used in zip(labels, known, used, strict=True):
                if code < 0 and is_used:
                    help_ = nearest_names(label, self.categories)
                    raise UserError(f"'{label}' is not a value of '{self.name}' in the training data; {help_}")
        # One more entry, so that the code -1 of a missing label picks -1.
        return np.append(known, -1)[codes].astype(np.int64)

    def decode(self, codes: Int[np.ndarray, " cells"]) -> pd.Categorical:
        """Return the labels of codes, missing for -1, with all categories of the training data."""
        return pd.Categorical.from_codes(codes, categories=pd.Index(self.categories, dtype=object))

    def _check_is_grouping(self, column: pd.Series) -> None:
        distinct, n_labelled = len(self.categories), sum(self.counts)
        values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
        if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
            fractional = any("." in label or "e" in label for label in self.categories)
            many_integers = distinct > MAX_DISTINCT_INTEGER and distinct > 0.1 * n_labelled
            if (fractional and distinct > MAX_DISTINCT_FRACTIONAL) or many_integers:
                raise UserError(
                    f"obs column '{self.name}' holds {distinct} different numbers, too many for a categorical "
                    "attribute; pass it as continuous"
                )
        if distinct > 50 and distinct > 0.5 * n_labelled:
            raise UserError(
                f"obs column '{self.name}' has {distinct} different labels for {n_labelled} cells, too many for a "
                "categorical attribute; choose a column that groups cells"
            )


@dataclass(frozen=True)
class ContinuousAttribute:
    """A number per cell.

    Attributes
    ----------
    name
        Name of the ``obs`` column.
    mean, std
        Mean and standard deviation (above zero) over the labelled training cells, in the units of the column.
    minimum, maximum
        Range over the labelled training cells.
    """

    name: str
    mean: float
    std: float
    minimum: float
    maximum: float

    @classmethod
    def fit(cls, column: pd.Series, name: str) -> ContinuousAttribute:
        """Measure the training cells; raises ``UserError`` if there is nothing to learn from the column."""
        values = numbers(column, name)
        values = values[~np.isnan(values)]
        if not len(values):
            raise UserError(f"obs column '{name}' has no value for any cell")
        mean, std = float(values.mean()), float(values.std())
        minimum, maximum = float(values.min()), float(values.max())
        if minimum == maximum or not std > 0:
            raise UserError(
                f"obs column '{name}' is {minimum:g} in every cell, so there is nothing to learn from it; "
                "leave it out of the continuous attributes"
            )
        return cls(name, mean, std, minimum, maximum)

    def encode(self, column: pd.Series) -> Float32[np.ndarray, " cells"]:
        """Return standardised values, NaN where the value is missing."""
        return ((numbers(column, self.name) - self.mean) / self.std).astype(np.float32)

    def decode(self, values: Float[np.ndarray, " cells"]) -> Float64[np.ndarray, " cells"]:
        """Return standardised values in the units of the column."""
        return values.astype(np.float64) * self.std + self.mean


def numbers(column: pd.Series, name: str) -> Float64[np.ndarray, " cells"]:
    """Read a column as numbers, NaN where there is none; text that spells a number counts as one."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        of_category = numbers(pd.Series(column.cat.categories), name)
        return np.append(of_category, np.nan)[column.cat.codes.to_numpy()]
    if pd.api.types.infer_dtype(column, skipna=True) == "boolean":
        raise UserError(f"obs column '{name}' holds true and false, not numbers; pass it as categorical")
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
        raise UserError(f"obs column '{name}' holds times, not numbers; convert it to a number of days or hours")
    if pd.api.types.is_complex_dtype(column.dtype):
        raise UserError(f"obs column '{name}' holds complex numbers; convert it to real ones")
    if column.dtype == object:
        # pandas ends in an error for whole numbers that no float can hold
        column = column.map(lambda value: _as_float(value) if isinstance(value, int) else value)
    parsed = pd.to_numeric(column, errors="coerce")
    text = column[parsed.isna() & column.notna()]
    if len(text):
        raise UserError(
            f"obs column '{name}' holds {str(text.iloc[0])!r}, which is not a number; pass the column as categorical"
        )
    values = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise UserError(f"obs column '{name}' holds {int(np.isinf(values).sum())} infinite values")
    return values


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)

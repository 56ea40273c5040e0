from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scldm.data import CategoricalAttribute, ContinuousAttribute
from scldm.errors import UserError


def test_a_category_column_keeps_its_order_and_loses_unused_categories() -> None:
    column = pd.Series(pd.Categorical(["b", "a", "b"], categories=["c", "b", "a"]))
    attribute = CategoricalAttribute.fit(column, "x")
    assert attribute.categories == ("b", "a")
    assert attribute.counts == (2, 1)


@pytest.mark.parametrize(
    ("column", "categories", "counts"),
    [
        (pd.Series([10, 9, 10, 2]), ("2", "9", "10"), (1, 1, 2)),
        (pd.Series([10.0, np.nan, 9.0, 9.0]), ("9", "10"), (2, 1)),
        (pd.Series([True, False, True]), ("False", "True"), (1, 2)),
        (pd.Series(["b", "a", "B"], dtype=object), ("B", "a", "b"), (1, 1, 1)),
        (pd.Series(["b", None, "a"], dtype="string"), ("a", "b"), (1, 1)),
        (pd.Series([2, None, 1], dtype="Int64"), ("1", "2"), (1, 1)),
        (pd.Series([True, None], dtype="boolean"), ("True",), (1,)),
        (pd.Series([1, "1", 2], dtype=object), ("1", "2"), (2, 1)),
        (pd.Series([b"x", b"y"], dtype=object), ("x", "y"), (1, 1)),
        (pd.Series([0.5, 1.0, 0.5]), ("0.5", "1"), (2, 1)),
        (pd.Series(["only"] * 3), ("only",), (3,)),
    ],
)
def test_labels_of_any_type_become_text(
    column: pd.Series, categories: tuple[str, ...], counts: tuple[int, ...]
) -> None:
    attribute = CategoricalAttribute.fit(column, "x")
    assert (attribute.categories, attribute.counts) == (categories, counts)
    codes = attribute.encode(column)
    np.testing.assert_array_equal(codes == -1, column.isna())
    decoded = attribute.decode(codes)
    assert list(decoded.categories) == list(categories)
    np.testing.assert_array_equal(attribute.encode(pd.Series(decoded)), codes)


def test_labels_are_the_same_whatever_type_spells_them() -> None:
    attribute = CategoricalAttribute.fit(pd.Series([1, 2, 3]), "batch")
    for column in (
        pd.Series(["3", "1"]),
        pd.Series([3.0, 1.0]),
        pd.Series([3, 1]),
        pd.Series(["3", "1"]).astype("category"),
    ):
        assert attribute.encode(column).tolist() == [2, 0]


def test_an_unknown_label_is_refused_with_the_nearest_ones() -> None:
    attribute = CategoricalAttribute.fit(pd.Series(["B cell", "T cell"]), "cell_type")
    with pytest.raises(UserError, match=r"'b cel' is not a value of 'cell_type'.*did you mean 'B cell'"):
        attribute.encode(pd.Series(["T cell", "b cel"]))
    assert attribute.encode(pd.Series(["T cell", "b cel"]), unknown="unlabelled").tolist() == [1, -1]


def test_an_unknown_category_that_no_cell_has_does_no_harm() -> None:
    attribute = CategoricalAttribute.fit(pd.Series(["a", "b"]), "x")
    column = pd.Series(pd.Categorical(["b"], categories=["z", "b"]))
    assert attribute.encode(column).tolist() == [1]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(np.linspace(0, 1, 30)),
        pd.Series(np.linspace(0, 1, 30)).astype("category"),
        pd.Series(np.arange(1000)),
    ],
)
def test_measurements_are_refused_as_labels(column: pd.Series) -> None:
    with pytest.raises(UserError, match=r"'pseudotime' holds \d+ different numbers.*pass it as continuous"):
        CategoricalAttribute.fit(column, "pseudotime")


def test_cell_names_are_refused_as_labels() -> None:
    with pytest.raises(UserError, match="'barcode' has 100 different labels for 100 cells"):
        CategoricalAttribute.fit(pd.Series([f"cell{i}" for i in range(100)]), "barcode")


def test_many_integer_labels_of_many_cells_are_labels() -> None:
    attribute = CategoricalAttribute.fit(pd.Series(np.arange(5000) % 150), "donor")
    assert len(attribute.categories) == 150
    assert attribute.categories[:3] == ("0", "1", "2")


def test_a_column_without_any_label_is_refused() -> None:
    with pytest.raises(UserError, match="'x' has no label for any cell"):
        CategoricalAttribute.fit(pd.Series([None, np.nan], dtype=object), "x")
    with pytest.raises(UserError, match="'x' has no value for any cell"):
        ContinuousAttribute.fit(pd.Series([np.nan, np.nan]), "x")


def test_continuous_values_are_standardised_and_lead_back() -> None:
    column = pd.Series([10.0, 20.0, np.nan, 60.0])
    attribute = ContinuousAttribute.fit(column, "age")
    values = attribute.encode(column)
    assert attribute.mean == 30
    assert (attribute.minimum, attribute.maximum) == (10, 60)
    assert np.isnan(values).tolist() == [False, False, True, False]
    assert np.nanmean(values) == pytest.approx(0, abs=1e-6)
    assert np.nanstd(values) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(attribute.decode(values), column, rtol=1e-6)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["1", "2.5", None]),
        pd.Series([1, 2.5, None], dtype=object),
        pd.Series([1, 2.5, None], dtype="Float64"),
        pd.Series([1.0, 2.5, None]).astype("category"),
        pd.Series([1.0, 2.5, np.nan], dtype=np.float32),
    ],
)
def test_numbers_are_read_from_columns_of_any_type(column: pd.Series) -> None:
    attribute = ContinuousAttribute.fit(column, "age")
    assert (attribute.minimum, attribute.maximum, attribute.mean) == (1, 2.5, 1.75)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pd.Series(["34 years", "1"]), "'age' holds '34 years', which is not a number"),
        (pd.Series(["adult", "fetal"]).astype("category"), "'age' holds 'adult', which is not a number"),
        (pd.Series([3.0, 3.0, 3.0]), "'age' is 3 in every cell"),
        (pd.Series([1.0, np.inf, -np.inf]), "'age' holds 2 infinite values"),
        (pd.Series([True, False]), "'age' holds true and false.*categorical"),
        (pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01"])), "'age' holds times"),
    ],
)
def test_what_is_not_a_measurement_is_refused(column: pd.Series, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ContinuousAttribute.fit(column, "age")

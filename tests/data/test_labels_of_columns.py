"""Every column that spells the same values gives the same labels, to the model and to the judge."""

from __future__ import annotations

import datetime
import enum

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scldm.data import CategoricalAttribute
from scldm.data.labels import as_labels, factorize_labels, label_of
from scldm.errors import UserError
from scldm.evaluation.cells import read_cells


class Kind(enum.Enum):
    """Labels as members of an enumeration."""

    B = "b"


class TextKind(str, enum.Enum):  # noqa: UP042 -- str() of the members of a StrEnum would be right by itself
    """The same, of text."""

    B = "b"


VALUES = [0.1, 1.0, 10.0, 1.0, 0.1]
SPELLED = ["0.1", "1", "10", "1", "0.1"]

COLUMNS = {
    "float64": pd.Series(VALUES),
    "float32": pd.Series(VALUES, dtype="float32"),
    "float16": pd.Series(VALUES, dtype="float16"),
    "longdouble": pd.Series(VALUES, dtype="longdouble"),
    "nullable": pd.Series(VALUES, dtype="Float32"),
    "category": pd.Series(VALUES).astype("category"),
    "category of float32": pd.Series(VALUES, dtype="float32").astype("category"),
    "object": pd.Series(VALUES, dtype=object),
    "object of float32": pd.Series([np.float32(v) for v in VALUES], dtype=object),
    "text": pd.Series(SPELLED),
    "string": pd.Series(SPELLED, dtype="string"),
    "bytes": pd.Series([s.encode() for s in SPELLED], dtype=object),
    "category of bytes": pd.Series([s.encode() for s in SPELLED], dtype=object).astype("category"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_the_model_and_the_judge_spell_a_column_alike(kind):
    column = COLUMNS[kind]
    assert list(as_labels(column)) == SPELLED
    assert CategoricalAttribute.fit(column, "dose").categories == ("0.1", "1", "10")
    cells = ad.AnnData(np.ones((5, 2), dtype=np.float32), obs=pd.DataFrame({"dose": column.to_numpy()}))
    cells.obs["dose"] = column.to_numpy() if kind != "nullable" else column.array
    judged = read_cells(cells, "the cells", None, ["dose"], optional=False)
    assert list(judged.labels["dose"]) == SPELLED


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("other", COLUMNS)
def test_columns_of_any_two_types_agree(kind, other):
    attribute = CategoricalAttribute.fit(COLUMNS[kind], "dose")
    assert attribute.encode(COLUMNS[other]).tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (0.1, "0.1"),
        (np.float32(0.1), "0.1"),
        (-0.0, "0"),
        (2.0, "2"),
        (np.float16(0.5), "0.5"),
        (1e20, "1e+20"),
        (1e15, "1000000000000000"),
        (float("inf"), "inf"),
        (3, "3"),
        (np.uint64(3), "3"),
        (True, "True"),
        (np.True_, "True"),
        (b"na\xc3\xafve", "naïve"),
        (b"\xff", "\\xff"),
        ("x", "x"),
        (Kind.B, "b"),
        (TextKind.B, "b"),
        (np.float16(0.1), "0.1"),
        (np.longdouble(0.1), "0.1"),
        (pd.Timestamp("2020-01-01"), "2020-01-01"),
        (np.datetime64("2020-01-01", "ns"), "2020-01-01"),
        (datetime.date(2020, 1, 1), "2020-01-01"),
        (datetime.datetime(2020, 1, 1, 12, 30), "2020-01-01 12:30:00"),
        (np.timedelta64(2, "D"), "2 days"),
    ],
)
def test_one_value_has_one_spelling(value, label):
    assert label_of(value) == label


def test_missing_values_stay_missing():
    for column in (pd.Series([1.0, np.nan]), pd.Series([1, None], dtype="Int64"), pd.Series(["1", None])):
        assert list(as_labels(column)) == ["1", None]
        assert factorize_labels(column)[0].tolist() == [0, -1]


@pytest.mark.parametrize("asked", [0.1, np.float32(0.1), np.float64(np.float32(0.1))])
@pytest.mark.parametrize("categories", [("0.1", "1"), ("0.10000000149011612", "1.0"), ("1e-1", "1")])
def test_a_number_finds_the_category_of_its_value(asked, categories):
    attribute = CategoricalAttribute("dose", categories, (1, 1))
    assert attribute.encode(pd.Series([asked, 1])).tolist() == [0, 1]
    assert attribute.encode(pd.Series([1, 1])).tolist() == [1, 1]


def test_a_number_that_several_categories_mean_finds_none():
    attribute = CategoricalAttribute("dose", ("1.0", "1.00"), (1, 1))
    with pytest.raises(UserError, match="'1' is not a value of 'dose'"):
        attribute.encode(pd.Series([1]))


def test_text_is_matched_as_text_where_some_labels_are_no_numbers():
    attribute = CategoricalAttribute("batch", ("01", "2"), (1, 1))
    with pytest.raises(UserError, match="'1' is not a value of 'batch'"):
        attribute.encode(pd.Series(["1"]))


@pytest.mark.parametrize("asked", ["1.0", "1.", "1e0", "+1", "1"])
def test_text_finds_the_number_that_it_spells_where_all_labels_are_numbers(asked):
    assert CategoricalAttribute("dose", ("0.1", "1"), (1, 1)).encode(pd.Series([asked])).tolist() == [1]


@pytest.mark.parametrize("asked", ["01", "1_0", "nan", "inf", "one", " 1", "\u0661"])
def test_text_that_is_no_plain_number_finds_none(asked):
    with pytest.raises(UserError, match="is not a value of 'dose'"):
        CategoricalAttribute("dose", ("0.1", "1", "10"), (1, 1, 1)).encode(pd.Series([asked]))


def test_values_that_are_equal_to_a_hash_table_are_told_apart():
    assert list(as_labels(pd.Series([1, "1", 1.0, True, False, 0], dtype=object))) == [
        "1",
        "1",
        "1",
        "True",
        "False",
        "0",
    ]


def test_dates_are_labels_in_columns_of_every_kind():
    days = ["2020-01-01", "2020-02-01", None]
    times = pd.Series(pd.to_datetime(days))
    for column in (times, times.astype("category"), times.astype(object), pd.Series(days)):
        assert list(as_labels(column)) == days


@pytest.mark.parametrize("other", [np.float32, np.float64])
def test_the_judge_matches_numbers_of_files_of_either_precision(other):
    thirds, doses = np.array([1 / 3, 2 / 3, 1.0]), np.array([1 / 3, 2 / 3, 1.0]).astype(other)
    files = [
        ad.AnnData(np.ones((3, 2), dtype=np.float32), obs=pd.DataFrame({"dose": some}, index=list("abc")))
        for some in (thirds, doses, pd.Categorical([str(dose) for dose in doses]))
    ]
    real, *others = (read_cells(file, "the cells", None, ["dose"], optional=False) for file in files)
    for cells in others:
        assert list(cells.spelled_like(real).labels["dose"]) == list(real.labels["dose"])


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1, 2}])
def test_values_that_are_no_labels_are_refused(value):
    with pytest.raises(UserError, match="column 'x' holds values that are no labels"):
        CategoricalAttribute.fit(pd.Series([value, value], name="x"), "x")

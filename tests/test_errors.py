from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scldm.errors import UserError, nearest_names

CELL_TYPES = ["B cell", "CD4 T cell", "CD8 T cell", "Monocyte", "NK"]


def test_user_error_is_an_ordinary_value_error():
    assert issubclass(UserError, ValueError)
    assert str(UserError("one clear sentence")) == "one clear sentence"


def test_nearest_name_is_suggested_whatever_its_case():
    assert nearest_names("b cel", CELL_TYPES).startswith("did you mean 'B cell'")
    assert nearest_names("MONOCYTES", CELL_TYPES) == "did you mean 'Monocyte'?"
    assert nearest_names("CD4 T cells", CELL_TYPES).startswith("did you mean 'CD4 T cell' or ")


def test_nearest_come_first_and_there_are_at_most_as_many_as_asked_for():
    names = [f"GENE{i}" for i in range(50)]
    assert nearest_names("GENE7x", names, n=1) == "did you mean 'GENE7'?"
    assert nearest_names("GENE7x", names, n=3).count("'") == 6


def test_without_a_near_name_the_first_ones_are_listed():
    assert nearest_names("zzz", ["a", "b"]) == "allowed: 'a', 'b'"
    listing = nearest_names("zzzzz", [f"gene{i}" for i in range(20)])
    assert listing.endswith("'gene7' and 12 more")


def test_names_need_not_be_text():
    assert nearest_names(124, [7, 8, 123]) == "did you mean '123'?"
    assert nearest_names("x", []) == "allowed: "


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True))
def test_only_allowed_names_are_ever_suggested(name, allowed):
    clause = nearest_names(name, allowed)
    assert clause.startswith(("did you mean ", "allowed: "))
    assert any(f"'{candidate}'" in clause for candidate in allowed)


@given(st.sampled_from(CELL_TYPES))
def test_a_valid_name_is_its_own_nearest(name):
    assert nearest_names(name, CELL_TYPES).startswith(f"did you mean '{name}'")

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scldm.data import split_cells
from scldm.errors import UserError

fractions = st.floats(0.01, 0.99)


@given(n_cells=st.integers(2, 300), fraction=fractions, seed=st.integers(-5, 2**65))
def test_every_cell_is_on_one_side(n_cells: int, fraction: float, seed: int) -> None:
    train, held_out = split_cells(n_cells, fraction=fraction, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(n_cells))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held_out) > 0).all()
    assert len(held_out) == min(n_cells - 1, max(1, round(fraction * n_cells)))
    again = split_cells(n_cells, fraction=fraction, seed=seed)
    np.testing.assert_array_equal(again[1], held_out)


@given(labels=st.lists(st.sampled_from("aaaaabbbcd"), min_size=2, max_size=200), fraction=fractions)
def test_strata_are_held_out_in_proportion(labels: list[str], fraction: float) -> None:
    column = pd.Series(labels)
    size = column.value_counts()
    if size.max() < 2:
        with pytest.raises(UserError, match="every cell has a label of its own"):
            split_cells(len(labels), fraction=fraction, seed=0, stratify_by=column)
        return
    train, held_out = split_cells(len(labels), fraction=fraction, seed=0, stratify_by=column)
    assert set(column[train]) == set(column)
    taken = column[held_out].value_counts().reindex(size.index, fill_value=0)
    assert ((taken - fraction * size).abs() < 1 + 1e-9).all() or len(held_out) == 1
    assert len(held_out) >= 1


def test_strata_of_one_cell_stay_in_training_and_the_total_is_kept() -> None:
    labels = np.array(["common"] * 95 + [f"rare{i}" for i in range(5)])
    train, held_out = split_cells(100, fraction=0.2, seed=0, stratify_by=labels)
    assert set(range(95, 100)) <= set(train.tolist())
    assert len(held_out) in (19, 20)


def test_unlabelled_cells_are_a_stratum() -> None:
    labels = pd.Series(["a", None] * 50)
    _, held_out = split_cells(100, fraction=0.2, seed=0, stratify_by=labels)
    assert labels[held_out].isna().sum() == 10


def test_different_seeds_hold_out_different_cells() -> None:
    splits = [split_cells(1000, fraction=0.1, seed=seed)[1] for seed in range(3)]
    assert len(np.intersect1d(splits[0], splits[1])) < 40
    assert len(np.intersect1d(splits[1], splits[2])) < 40


@given(groups=st.lists(st.integers(0, 9), min_size=2, max_size=150), fraction=fractions, stratified=st.booleans())
def test_groups_are_never_separated(groups: list[int], fraction: float, stratified: bool) -> None:
    column = np.array(groups)
    strata = np.arange(len(groups)) % 3 if stratified else None
    if len(set(groups)) == 1:
        with pytest.raises(UserError, match="all cells have the same label in group_by"):
            split_cells(len(groups), fraction=fraction, seed=0, group_by=column, stratify_by=strata)
        return
    train, held_out = split_cells(len(groups), fraction=fraction, seed=0, group_by=column, stratify_by=strata)
    assert not set(column[train]) & set(column[held_out])
    assert len(train) > 0
    assert len(held_out) > 0
    assert len(train) + len(held_out) == len(groups)


def test_held_out_groups_come_near_the_fraction_and_the_strata() -> None:
    random = np.random.default_rng(0)
    donor = random.integers(0, 40, 4000)
    # The first half of the donors is healthy.
    disease = donor >= 20
    _, held_out = split_cells(4000, fraction=0.2, seed=0, group_by=donor, stratify_by=disease)
    assert abs(len(held_out) / 4000 - 0.2) < 0.02
    assert abs(disease[held_out].mean() - disease.mean()) < 0.05


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 5.0])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="has to lie between 0 and 1"):
        split_cells(10, fraction=fraction, seed=0)


def test_one_cell_cannot_be_split_and_labels_have_to_fit() -> None:
    with pytest.raises(UserError, match="1 cells cannot be split"):
        split_cells(1, fraction=0.5, seed=0)
    with pytest.raises(ValueError, match="group_by has 3 labels for 4 cells"):
        split_cells(4, fraction=0.5, seed=0, group_by=np.arange(3))

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scldm.data import read_counts
from scldm.errors import UserError


def logged(adata: ad.AnnData) -> sp.csr_matrix:
    """Return log1p CP10K."""
    counts = adata.X.toarray()
    return sp.csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4))


def with_entry(adata: ad.AnnData, value: float, dtype: type = np.float64) -> sp.csr_matrix:
    matrix = adata.X.astype(dtype)
    matrix.data[5] = value
    return matrix


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array, lambda m: m.toarray()])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint16])
def test_counts_are_read_from_any_container_and_type(adata: ad.AnnData, container: Callable, dtype: type) -> None:
    expected = adata.X.toarray()
    adata.X = container(adata.X.astype(dtype))
    counts = read_counts(adata)
    assert counts.dtype == np.float32
    assert counts.has_canonical_format
    assert counts.data.min() > 0
    np.testing.assert_array_equal(counts.toarray(), expected)


def test_counts_are_read_from_where_the_user_says(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X * 2
    adata.raw = ad.AnnData(adata.X * 3, var=adata.var)
    total = adata.X.sum()
    assert read_counts(adata).sum() == total
    assert read_counts(adata, "X").sum() == total
    assert read_counts(adata, "counts").sum() == 2 * total
    assert read_counts(adata, "raw").sum() == 3 * total
    adata.layers["raw"] = adata.X * 4
    assert read_counts(adata, "raw").sum() == 4 * total


def test_stored_zeros_and_disorder_are_mended_in_a_copy(adata: ad.AnnData) -> None:
    messy = adata.X.tocsr()
    messy.indices[:2] = messy.indices[:2][::-1].copy()
    messy.has_sorted_indices = False
    messy.data[7] = 0
    before = messy.indices.copy(), messy.data.copy()
    adata.X = messy
    counts = read_counts(adata)
    assert counts.has_sorted_indices
    assert counts.nnz == messy.nnz - 1
    np.testing.assert_array_equal(adata.X.indices, before[0])
    np.testing.assert_array_equal(adata.X.data, before[1])


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.nan, "X holds 1 NaN values"),
        (np.inf, "X holds 1 infinite values"),
        (-np.inf, "X holds 1 infinite values"),
        (-1.0, r"X holds negative values \(-1\), so it is not counts"),
        (40.5, r"X holds values that are not integers \(40.5\); scldm needs integer UMI counts"),
        (2.0**24 + 2, "X holds a count of 16777218; counts above 16777216"),
    ],
)
def test_what_is_not_counts_is_refused(adata: ad.AnnData, value: float, sentence: str, dense: bool) -> None:
    matrix = with_entry(adata, value)
    adata.X = matrix.toarray() if dense else matrix
    with pytest.raises(UserError, match=sentence):
        read_counts(adata)


def test_integers_beyond_float32_are_refused(adata: ad.AnnData) -> None:
    adata.X = with_entry(adata, 2**24 + 1, np.int64)
    with pytest.raises(UserError, match="16777217"):
        read_counts(adata)
    adata.X = with_entry(adata, 2**24, np.int64)
    assert read_counts(adata).max() == 2**24


def test_log_normalised_values_are_recognised_and_the_counts_found(adata: ad.AnnData) -> None:
    raw, adata.X = adata.X, logged(adata)
    with pytest.raises(UserError, match=r"X holds values that are not integers .*looks log-normalised; scldm needs"):
        read_counts(adata)
    adata.layers["umi"] = raw
    adata.layers["scaled"] = logged(adata).toarray() - 1
    adata.raw = ad.AnnData(raw, var=adata.var)
    with pytest.raises(UserError, match=r"which are in layer 'umi' and raw: name it as the layer"):
        read_counts(adata)
    assert read_counts(adata, "umi").sum() == raw.sum()


def test_empty_cells_are_refused_with_their_number(adata: ad.AnnData) -> None:
    matrix = adata.X.tolil()
    matrix[[3, 8], :] = 0
    adata.X = matrix.tocsr()
    with pytest.raises(UserError, match="2 of 60 cells have no counts; remove them"):
        read_counts(adata)


def test_missing_places_are_refused(adata: ad.AnnData) -> None:
    with pytest.raises(UserError, match="no layer 'counts'; the data has no layers"):
        read_counts(adata, "counts")
    with pytest.raises(UserError, match="no layer 'raw'"):
        read_counts(adata, "raw")
    adata.layers["counts"] = adata.X
    with pytest.raises(UserError, match="no layer 'count'; did you mean 'counts'"):
        read_counts(adata, "count")
    del adata.X
    with pytest.raises(UserError, match=r"no X; name the layer that holds the counts \(layers: 'counts'\)"):
        read_counts(adata)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_data_without_cells_or_genes_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"{shape[0]} cells and {shape[1]} genes"):
        read_counts(ad.AnnData(sp.csr_matrix(shape, dtype=np.float32)))


def test_values_that_are_not_numbers_are_refused(adata: ad.AnnData) -> None:
    adata.layers["text"] = np.full(adata.shape, "a")
    with pytest.raises(UserError, match="layer 'text' holds values of type <U1"):
        read_counts(adata, "text")


def test_cell_names_may_repeat(adata: ad.AnnData) -> None:
    adata.obs.index = ["cell"] * 60
    assert read_counts(adata).shape == (60, 12)


@pytest.mark.parametrize("container", [sp.csr_matrix, sp.csc_matrix, lambda m: m.toarray()])
def test_counts_are_read_from_backed_data(adata: ad.AnnData, container: Callable, tmp_path: Path) -> None:
    expected = adata.X.toarray()
    adata.X = container(adata.X)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    np.testing.assert_array_equal(read_counts(backed).toarray(), expected)
    np.testing.assert_array_equal(read_counts(backed[10:20]).toarray(), expected[10:20])


def test_large_dense_matrices_are_read_in_blocks(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scldm.data.counts.ENTRIES_AT_A_TIME", 50)
    expected = adata.X.toarray()
    adata.X = expected.copy()
    np.testing.assert_array_equal(read_counts(adata).toarray(), expected)
    adata.X[59, 11] = np.nan
    with pytest.raises(UserError, match="1 NaN"):
        read_counts(adata)

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from batches import is_same
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.utils.data import DataLoader

from scldm.data import CellBatch

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 7.0, 2.0**20]),
)


@given(dense=matrices)
def test_a_batch_holds_the_matrix(dense: np.ndarray) -> None:
    batch = CellBatch.from_csr(sp.csr_matrix(dense))

    np.testing.assert_array_equal(batch.dense(dense.shape[1]).numpy(), dense)
    np.testing.assert_array_equal(batch.library_size.numpy(), dense.sum(axis=1))
    np.testing.assert_array_equal(batch.offsets.diff().numpy(), (dense > 0).sum(axis=1))
    np.testing.assert_array_equal(batch.cell_ids().numpy(), np.nonzero(dense)[0])
    np.testing.assert_array_equal(batch.gene_ids.numpy(), np.nonzero(dense)[1])
    assert batch.n_cells == len(batch) == len(dense)
    assert batch.categorical.shape == batch.continuous.shape == (len(dense), 0)


@given(dense=matrices, data=st.data())
def test_a_slice_holds_the_rows(dense: np.ndarray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(dense) + 2))
    stop = data.draw(st.integers(start, len(dense) + 2))
    codes = np.arange(len(dense))[:, None]

    part = CellBatch.from_csr(sp.csr_matrix(dense), categorical=codes).slice(start, stop)

    np.testing.assert_array_equal(part.dense(dense.shape[1]).numpy(), dense[start:stop])
    np.testing.assert_array_equal(part.library_size.numpy(), dense[start:stop].sum(axis=1))
    np.testing.assert_array_equal(part.categorical.numpy(), codes[start:stop])
    assert part.offsets[0] == 0
    assert part.offsets[-1] == len(part.gene_ids)


@given(dense=matrices)
def test_padding_hides_nothing_and_adds_nothing(dense: np.ndarray) -> None:
    gene_ids, counts, mask = CellBatch.from_csr(sp.csr_matrix(dense)).padded()

    assert gene_ids.shape == counts.shape == mask.shape == (len(dense), (dense > 0).sum(axis=1).max())
    assert not counts[~mask].any()
    assert not gene_ids[~mask].any()
    # Entries come first in their row.
    assert (mask.int().diff(dim=1) <= 0).all()
    rebuilt = torch.zeros(dense.shape)
    rebuilt[mask.nonzero()[:, 0], gene_ids[mask]] = counts[mask]
    np.testing.assert_array_equal(rebuilt.numpy(), dense)


def test_stored_zeros_disorder_and_repeats_do_not_matter_and_the_matrix_stays_as_it_is() -> None:
    data = np.array([5, 0, 1, 2, 3], dtype=np.int64)
    indices = np.array([3, 2, 0, 1, 1])
    messy = sp.csr_matrix((data, indices, np.array([0, 3, 3, 5])), shape=(3, 4))

    batch = CellBatch.from_csr(messy)

    assert batch.gene_ids.tolist() == [0, 3, 1]
    assert batch.counts.tolist() == [1.0, 5.0, 5.0]
    assert batch.offsets.tolist() == [0, 2, 2, 3]
    assert batch.library_size.tolist() == [6.0, 0.0, 5.0]
    assert messy.data.tolist() == [5, 0, 1, 2, 3]
    assert messy.indices.tolist() == [3, 2, 0, 1, 1]


def test_a_batch_does_not_share_memory_with_its_matrix() -> None:
    matrix = sp.csr_matrix(np.array([[1, 0, 2]], dtype=np.float32))
    batch = CellBatch.from_csr(matrix)
    matrix.data[:] = 100
    assert batch.counts.tolist() == [1.0, 2.0]


def test_library_sizes_are_exact_where_float32_sums_would_not_be() -> None:
    dense = np.array([[2**24 - 1, 1, 0], [1, 1, 1]], dtype=np.float32)
    batch = CellBatch.from_csr(sp.csr_matrix(dense))
    assert batch.library_size.tolist() == [2.0**24, 3.0]


def test_attributes_have_to_fit_the_cells() -> None:
    with pytest.raises(ValueError, match="2 cells, categorical has 3"):
        CellBatch.from_csr(sp.csr_matrix(np.eye(2, dtype=np.float32)), categorical=np.zeros((3, 1), dtype=np.int64))


def test_a_slice_that_runs_backwards_is_refused() -> None:
    batch = CellBatch.from_csr(sp.csr_matrix(np.eye(3, dtype=np.float32)))
    with pytest.raises(ValueError, match="start=2 and stop=1"):
        batch.slice(2, 1)


def test_moving_a_batch_moves_every_tensor() -> None:
    batch = CellBatch.from_csr(sp.csr_matrix(np.eye(3, dtype=np.float32)))
    for each in (batch, two_stores()):
        moved = each.to("meta")
        assert moved.device.type == "meta"
        assert {t.device.type for t in vars(moved).values() if t is not None} == {"meta"}
        assert (moved.measured is None) == (each.measured is None)
        assert each.device.type == "cpu"


def two_stores() -> CellBatch:
    """Three cells over four genes, of which the first store measured two and the second three."""
    dense = np.array([[1, 0, 2, 0], [3, 0, 0, 1], [0, 0, 5, 0]], dtype=np.float32)
    measured = np.array([[True, False, True, False], [True, True, False, True]])
    return CellBatch.from_csr(sp.csr_matrix(dense), measured=measured, stores=np.array([0, 1, 0]))


def test_every_cell_knows_the_genes_that_its_store_measured() -> None:
    batch = two_stores()
    expected = [[True, False, True, False], [True, True, False, True], [True, False, True, False]]
    assert batch.measured_by_cell().tolist() == expected
    # The table of the stores is kept by store: a part of the cells has the same table.
    part = batch.slice(1, 3)
    assert part.measured is batch.measured
    assert part.stores.tolist() == [1, 0]
    assert part.measured_by_cell().tolist() == expected[1:]
    assert batch.slice(3, 9).measured_by_cell().shape == (0, 4)
    assert batch.hide_attributes().measured_by_cell().tolist() == expected
    assert is_same(pickle.loads(pickle.dumps(batch)), batch)


def test_where_all_genes_were_measured_nothing_is_carried() -> None:
    batch = CellBatch.from_csr(sp.csr_matrix(np.eye(3, dtype=np.float32)))
    assert batch.measured is batch.stores is None
    assert batch.measured_by_cell() is None
    assert batch.slice(0, 2).measured is None
    with pytest.raises(ValueError, match="both measured and stores, or neither"):
        CellBatch.from_csr(sp.csr_matrix(np.eye(3, dtype=np.float32)), stores=np.zeros(3, dtype=np.int64))


def test_a_data_loader_passes_batches_through_unchanged() -> None:
    batch = CellBatch.from_csr(sp.csr_matrix(np.eye(3, dtype=np.float32)))
    (same,) = DataLoader([batch], batch_size=None)  # type: ignore[arg-type]
    assert same is batch


@settings(max_examples=20)
@given(dense=matrices)
def test_any_integer_type_gives_the_same_batch(dense: np.ndarray) -> None:
    expected = CellBatch.from_csr(sp.csr_matrix(dense))
    for dtype in (np.int32, np.int64, np.uint32, np.float64):
        batch = CellBatch.from_csr(sp.csr_array(dense.astype(dtype)))
        assert is_same(batch, expected)

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from scldm.data import BatchIndices, CellDataset, EpochOrder, open_source
from scldm.data.stores import h5ad as h5ad_store
from scldm.data.stores.h5ad import H5adStore


@pytest.fixture(params=["csr", "dense"])
def stored(request: pytest.FixtureRequest, tmp_path: Path, adata: ad.AnnData) -> H5adStore:
    if request.param == "dense":
        adata.X = adata.X.toarray()
    adata.write_h5ad(tmp_path / "rows.h5ad")
    return H5adStore(tmp_path / "rows.h5ad")


def as_dense(adata: ad.AnnData) -> np.ndarray:
    return adata.X.toarray() if sp.issparse(adata.X) else adata.X


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 59), max_size=30), gap=st.integers(0, 40))
def test_rows_come_in_the_order_asked_for(stored: H5adStore, adata: ad.AnnData, rows: list[int], gap: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scldm.data.stores.h5ad.GAP", gap)
        result = stored.read(np.array(rows, dtype=np.int64))
    assert result.shape == (len(rows), 12)
    np.testing.assert_array_equal(result.toarray(), as_dense(adata)[rows])


def test_blocks_cover_all_rows_once(stored: H5adStore, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 70, 10**6):
        monkeypatch.setattr("scldm.data.stores.h5ad.ENTRIES_AT_A_TIME", size)
        blocks = list(stored.blocks())
        np.testing.assert_array_equal(sp.vstack(blocks).toarray(), as_dense(adata))
        if size == 70:
            assert len(blocks) > 3
            assert max(b.nnz for b in blocks) <= 70


def test_neighbouring_rows_are_read_at_once(h5ad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    read_runs = h5ad_store._read_runs

    def count_runs(dataset: object, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        runs.append(len(start))
        return read_runs(dataset, start, stop)

    monkeypatch.setattr(h5ad_store, "_read_runs", count_runs)
    monkeypatch.setattr(h5ad_store, "GAP", 0)
    H5adStore(h5ad).read(np.array([7, 5, 6, 30, 5, 31]))
    # Values and columns, each in the two runs 5-7 and 30-31.
    assert runs == [2, 2]


def test_worker_processes_read_the_same_batches(h5ad: Path) -> None:
    source = open_source(h5ad, backed=True)
    # Used before the workers start, so that they inherit an open file.
    source.batch(np.array([0]))
    order = EpochOrder(source.n_cells, 16, seed=1)
    loader = DataLoader(CellDataset(source), batch_size=None, sampler=BatchIndices(order, n_batches=5), num_workers=2)
    for position, batch in enumerate(loader):
        expected = source.batch(order.batch(*divmod(position, order.steps_per_epoch)))
        assert torch.equal(batch.dense(12), expected.dense(12))
    assert position == 4


def test_a_closed_file_opens_again(stored: H5adStore, adata: ad.AnnData) -> None:
    stored.read(np.array([1]))
    stored.close()
    stored.close()
    np.testing.assert_array_equal(stored.read(np.array([1])).toarray(), as_dense(adata)[[1]])


@pytest.mark.parametrize(
    ("dense", "chunks", "rows"),
    # 600 rows of 10 entries each: what can be read at the price of one is at least GAP entries, and at least a chunk.
    [(False, 2000, 409), (False, 5000, 500), (False, None, 409), (True, (50, 30), 50), (True, None, 1)],
)
def test_locality_is_the_rows_that_are_cheap_together(
    tmp_path: Path, dense: bool, chunks: int | tuple[int, int] | None, rows: int
) -> None:
    matrix = np.zeros((600, 30), dtype=np.float32)
    matrix[:, :10] = 1
    ad.AnnData(sp.csr_matrix(matrix)).write_h5ad(tmp_path / "rows.h5ad")
    with h5py.File(tmp_path / "rows.h5ad", "a") as file:
        if dense:
            del file["X"]
            file.create_dataset("X", data=matrix, chunks=chunks)
        else:
            data = file["X/data"][:]
            del file["X/data"]
            file["X"].create_dataset("data", data=data, chunks=chunks)
    store = H5adStore(tmp_path / "rows.h5ad")
    assert store.locality == rows
    assert store.n_entries == (18000 if dense else 6000)
    np.testing.assert_array_equal(store.read(np.array([3, 599])).toarray(), matrix[[3, 599]])

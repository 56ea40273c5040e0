from __future__ import annotations

import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from scldm.data import BatchIndices, CellDataset, EpochOrder, backed, open_source
from scldm.data.backed import StoredRows


@pytest.fixture(params=["csr", "dense"])
def stored(request: pytest.FixtureRequest, tmp_path: Path, adata: ad.AnnData) -> StoredRows:
    if request.param == "dense":
        adata.X = adata.X.toarray()
    adata.write_h5ad(tmp_path / "rows.h5ad")
    return StoredRows(tmp_path / "rows.h5ad", "X")


def as_dense(adata: ad.AnnData) -> np.ndarray:
    return adata.X.toarray() if sp.issparse(adata.X) else adata.X


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 59), max_size=30), gap=st.integers(0, 40))
def test_rows_come_in_the_order_asked_for(stored: StoredRows, adata: ad.AnnData, rows: list[int], gap: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scldm.data.backed.GAP", gap)
        result = stored.read(np.array(rows, dtype=np.int64))
    assert result.shape == (len(rows), 12)
    np.testing.assert_array_equal(result.toarray(), as_dense(adata)[rows])


def test_blocks_cover_all_rows_once(stored: StoredRows, adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 70, 10**6):
        monkeypatch.setattr("scldm.data.backed.ENTRIES_AT_A_TIME", size)
        starts, blocks = zip(*stored.blocks(), strict=True)
        assert list(starts) == np.cumsum([0, *(b.shape[0] for b in blocks[:-1])]).tolist()
        np.testing.assert_array_equal(sp.vstack(blocks).toarray(), as_dense(adata))
        if size == 70:
            assert len(blocks) > 3
            assert max(b.nnz for b in blocks) <= 70


def test_neighbouring_rows_are_read_at_once(h5ad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    read_runs = backed._read_runs

    def count_runs(dataset: object, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        runs.append(len(start))
        return read_runs(dataset, start, stop)

    monkeypatch.setattr(backed, "_read_runs", count_runs)
    monkeypatch.setattr(backed, "GAP", 0)
    StoredRows(h5ad, "X").read(np.array([7, 5, 6, 30, 5, 31]))
    # Values and columns, each in the two runs 5-7 and 30-31.
    assert runs == [2, 2]


def test_a_source_can_be_pickled_after_use(adata: ad.AnnData, h5ad: Path) -> None:
    source = open_source(h5ad, categorical=["cell_type"], backed=True)
    cells = np.array([4, 2])
    before = source.batch(cells)
    after = pickle.loads(pickle.dumps(source)).batch(cells)
    assert all(torch.equal(a, b) for a, b in zip(vars(before).values(), vars(after).values(), strict=True))


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


def test_a_closed_file_opens_again(stored: StoredRows, adata: ad.AnnData) -> None:
    stored.read(np.array([1]))
    stored.close()
    stored.close()
    np.testing.assert_array_equal(stored.read(np.array([1])).toarray(), as_dense(adata)[[1]])

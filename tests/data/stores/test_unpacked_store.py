from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from batches import is_same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from scldm.data import BatchIndices, CellDataset, EpochOrder, open_source
from scldm.data.stores.unpacked import UnpackedStore
from scldm.errors import UserError

MESSY_GENES = 12


def messy(n_cells: int) -> sp.csr_matrix:
    """Counts as files may hold them: unsorted columns, repeated ones, stored zeros, a cell in no order at all."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, 9, n_cells)
    indices = np.concatenate([random.integers(0, MESSY_GENES, n) for n in lengths])
    counts = random.integers(0, 4, len(indices)).astype(np.float32)
    # One gene that every cell has, with more counts than 16 bits hold.
    last = np.cumsum(lengths) - 1
    indices[last], counts[last] = 5, 70_000
    return sp.csr_matrix((counts, indices, np.concatenate([[0], np.cumsum(lengths)])), (n_cells, MESSY_GENES))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 59), max_size=30))
def test_rows_come_in_the_order_asked_for(adata: ad.AnnData, tmp_path: Path, rows: list[int]) -> None:
    blocks = [adata.X[:7], adata.X[7:7], adata.X[7:]]
    unpacked = UnpackedStore.write(tmp_path / "counts", blocks, adata.var_names)
    result = unpacked.read(np.array(rows, dtype=np.int64))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result.toarray(), adata.X.toarray()[rows])
    # What the matrix says of itself without looking is true.
    result.has_canonical_format = False
    result.sum_duplicates()
    np.testing.assert_array_equal(result.toarray(), adata.X.toarray()[rows])


@pytest.mark.parametrize("n_genes", [2**16, 2**16 + 1])
def test_the_last_gene_of_a_long_list_keeps_its_place(tmp_path: Path, n_genes: int) -> None:
    matrix = sp.csr_matrix(([1.0, 2.0], [0, n_genes - 1], [0, 1, 2]), (2, n_genes), dtype=np.float32)
    result = UnpackedStore.write(tmp_path / "counts", [matrix], pd.RangeIndex(n_genes).astype(str)).read(
        np.array([1, 0])
    )
    assert result.indices.tolist() == [n_genes - 1, 0]
    assert result.shape == (2, n_genes)


@pytest.mark.parametrize("reorder", [False, True])
def test_an_unpacked_file_holds_the_same_cells(tmp_path: Path, reorder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scldm.data.stores.h5ad.ENTRIES_AT_A_TIME", 50)
    adata = ad.AnnData(messy(40))
    adata.obs["batch"] = [f"b{i % 3}" for i in range(40)]
    adata.write_h5ad(tmp_path / "cells.h5ad", compression="gzip")
    schema = None
    if reorder:
        # A model of other genes in another order, one of which the file lacks.
        other = adata[:, ["5", "2", "11", "0", "7", "9", "1"]].copy()
        other.var_names = ["5", "2", "11", "0", "7", "9", "absent"]
        schema = open_source(other, categorical=["batch"]).schema
    source = open_source(tmp_path / "cells.h5ad", categorical=["batch"], schema=schema, backed=True)
    source.unpack(tmp_path / "counts")
    unpacked = source.unpacked(tmp_path / "counts")
    for part in (np.arange(40), np.array([31, 4, 4, 9])):
        for before, after in ((source, unpacked), (source.subset(part), unpacked.subset(part))):
            cells = np.arange(before.n_cells)[::-1]
            theirs, ours = before.batch(cells), after.batch(cells)
            assert is_same(theirs, ours)
            assert before.gene_totals().tolist() == after.gene_totals().tolist()
            assert before.library_sizes().tolist() == after.library_sizes().tolist()


def test_a_subset_is_unpacked_as_that_subset(h5ad: Path, tmp_path: Path) -> None:
    cells = np.array([9, 3, 50])
    subset = open_source(h5ad, backed=True).subset(cells)
    subset.unpack(tmp_path / "counts")
    every = np.arange(3)
    assert torch.equal(subset.unpacked(tmp_path / "counts").batch(every).counts, subset.batch(every).counts)


def test_rows_are_complete_only_when_all_are_there(adata: ad.AnnData, tmp_path: Path) -> None:
    def cut_off() -> Iterator[sp.csr_matrix]:
        yield adata.X[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        UnpackedStore.write(tmp_path / "counts", cut_off(), adata.var_names)
    assert not list(tmp_path.iterdir())
    store = UnpackedStore.write(tmp_path / "counts", [adata.X], adata.var_names)
    assert (tmp_path / "counts").is_dir()
    with pytest.raises(KeyboardInterrupt):
        UnpackedStore.write(tmp_path / "counts", cut_off(), adata.var_names)
    # The earlier ones stay, whole.
    again = UnpackedStore(tmp_path / "counts", adata.var_names)
    np.testing.assert_array_equal(again.read(np.arange(60)).toarray(), adata.X.toarray())
    assert (store.n_cells, store.n_entries, store.locality) == (60, adata.X.nnz, None)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    h5ad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(h5ad, backed=True)
    needed = ad.read_h5ad(h5ad).X.nnz * 6
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, needed - 1))
    with pytest.raises(UserError, match=r"would take .* GB, and .* left; .* --data\.no-unpack"):
        source.unpack(tmp_path / "counts")
    assert not (tmp_path / "counts").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, needed))
    source.unpack(tmp_path / "counts")


def test_worker_processes_and_pickles_read_the_same_batches(h5ad: Path, tmp_path: Path) -> None:
    packed = open_source(h5ad, backed=True)
    packed.unpack(tmp_path / "counts")
    source = packed.unpacked(tmp_path / "counts")
    source.batch(np.array([0]))
    # The numbers stay on disk: 60 cells of some 5 genes are more than the rest.
    assert len(pickle.dumps(source.store)) < 1500
    assert torch.equal(
        pickle.loads(pickle.dumps(source)).batch(np.array([3])).counts, source.batch(np.array([3])).counts
    )
    order = EpochOrder(source.n_cells, 16, seed=1)
    loader = DataLoader(CellDataset(source), batch_size=None, sampler=BatchIndices(order, n_batches=5), num_workers=2)
    for position, batch in enumerate(loader):
        expected = source.batch(order.batch(*divmod(position, order.steps_per_epoch)))
        assert torch.equal(batch.dense(12), expected.dense(12))
    assert position == 4


def test_counts_are_unpacked_only_where_it_helps(adata: ad.AnnData, h5ad: Path, tmp_path: Path) -> None:
    in_memory, packed = open_source(adata), open_source(h5ad, backed=True)
    in_memory.unpack(tmp_path / "counts")
    assert not (tmp_path / "counts").exists()
    assert in_memory.unpacked(tmp_path / "counts") is in_memory
    packed.unpack(tmp_path / "counts")
    unpacked = packed.unpacked(tmp_path / "counts")
    unpacked.unpack(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    assert unpacked.unpacked(tmp_path / "elsewhere") is unpacked


def test_unmeasured_genes_stay_unmeasured_when_unpacked(adata: ad.AnnData, tmp_path: Path) -> None:
    schema = open_source(adata).schema
    adata[:, [7, 2, 11, 0, 1, 3, 9, 8]].copy().write_h5ad(tmp_path / "panel.h5ad")
    source = open_source(tmp_path / "panel.h5ad", schema=schema, backed=True)
    source.unpack(tmp_path / "counts")
    unpacked = source.unpacked(tmp_path / "counts")
    assert is_same(unpacked.batch(np.array([8, 1])), source.batch(np.array([8, 1])))
    assert np.flatnonzero(unpacked.genes.measured).tolist() == [0, 1, 2, 3, 7, 8, 9, 11]

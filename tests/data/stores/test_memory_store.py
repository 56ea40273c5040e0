from __future__ import annotations

import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scldm.data.stores.memory import MemoryStore
from scldm.errors import UserError


def test_counts_are_read_when_they_are_needed(adata: ad.AnnData, h5ad: Path) -> None:
    store, obs = MemoryStore.open(h5ad, None)
    assert obs.index.tolist() == adata.obs_names.tolist()
    assert (store.n_cells, store.genes.tolist(), store.where) == (60, adata.var_names.tolist(), "X")
    h5ad.rename(h5ad.with_name("moved.h5ad"))
    with pytest.raises(UserError, match="there is no file"):
        store.scan()


def test_one_pass_counts_cells_and_genes(adata: ad.AnnData) -> None:
    store, _ = MemoryStore.open(adata, None)
    scan, dense = store.scan(), adata.X.toarray()
    np.testing.assert_array_equal(scan.totals, dense.sum(axis=1))
    np.testing.assert_array_equal(scan.n_expressing, (dense > 0).sum(axis=0))
    assert (store.n_entries, store.locality) == (adata.X.nnz, None)


@pytest.mark.parametrize("columns", [[5, 0, 7], list(range(12))])
def test_some_genes_are_a_store_of_their_own(adata: ad.AnnData, columns: list[int]) -> None:
    expected = adata.X.toarray()[[4, 2]][:, columns]
    store = MemoryStore.open(adata, None)[0].narrowed(np.array(columns))
    adata.X.data[:] = 100
    assert store.genes.tolist() == adata.var_names[columns].tolist()
    for each in (store, pickle.loads(pickle.dumps(store))):
        np.testing.assert_array_equal(each.read(np.array([4, 2])).toarray(), expected)


def test_a_store_that_was_not_read_yet_is_pickled_with_its_counts(adata: ad.AnnData) -> None:
    store = pickle.loads(pickle.dumps(MemoryStore.open(adata, None)[0]))
    np.testing.assert_array_equal(store.read(np.arange(60)).toarray(), adata.X.toarray())

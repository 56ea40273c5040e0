from __future__ import annotations

import pickle
import pkgutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from batches import is_same
from hypothesis import given, settings
from hypothesis import strategies as st

from scldm.data import CellSource, open_source
from scldm.errors import UserError

ATTRIBUTES = {"categorical": ["cell_type", "batch"], "continuous": ["age"]}


@pytest.fixture(params=["memory", "path", "backed", "backed dense", "backed AnnData"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., CellSource]:
    """Open an AnnData in every way that there is."""

    def open_it(adata: ad.AnnData, **options: object) -> CellSource:
        if request.param == "memory":
            return open_source(adata, **options)
        adata = adata.copy()
        if request.param == "backed dense":
            adata.X = adata.X.toarray()
        path = tmp_path / f"opened{len(list(tmp_path.iterdir()))}.h5ad"
        adata.write_h5ad(path)
        if request.param == "backed AnnData":
            return open_source(ad.read_h5ad(path, backed="r"), backed=True, **options)
        return open_source(path, backed=request.param != "path", **options)

    return open_it


def test_a_source_holds_the_data(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    source = opener(adata, **ATTRIBUTES)
    cells = np.array([50, 3, 3, 17, 18, 19, 0])
    dense = adata.X.toarray()

    batch = source.batch(cells)

    assert isinstance(source, CellSource)
    assert source.n_cells == 60
    np.testing.assert_array_equal(batch.dense(12).numpy(), dense[cells])
    np.testing.assert_array_equal(source.gene_totals(), dense.sum(axis=0))
    np.testing.assert_array_equal(source.library_sizes(), dense.sum(axis=1))
    np.testing.assert_array_equal(batch.library_size.numpy(), dense[cells].sum(axis=1))
    assert source.obs.index.tolist() == adata.obs_names.tolist()
    assert source.coverage.share_of_umis_kept == 1
    codes, values = source.schema.encode_attributes(adata.obs[["cell_type", "batch", "age"]].iloc[cells])
    np.testing.assert_array_equal(batch.categorical.numpy(), codes)
    np.testing.assert_array_equal(batch.continuous.numpy(), values)
    assert source.batch(np.array([], dtype=np.int64)).n_cells == 0


def test_the_way_of_opening_does_not_matter(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    dense = adata.X.toarray()
    dense[:, 4] = 0
    adata.X = sp.csr_matrix(dense)
    source, expected = opener(adata, **ATTRIBUTES), open_source(adata, **ATTRIBUTES)
    assert source.schema == expected.schema
    assert source.coverage == expected.coverage
    pd.testing.assert_frame_equal(source.obs, expected.obs)


def test_a_subset_is_a_source_of_its_own(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    source = opener(adata, **ATTRIBUTES)
    part = source.subset(np.arange(30, 60)).subset(np.array([5, 1]))
    dense = adata.X.toarray()[[35, 31]]
    assert part.n_cells == 2
    assert part.schema is source.schema
    assert part.obs.index.tolist() == ["cell35", "cell31"]
    assert part.obs["age"].tolist() == adata.obs["age"].iloc[[35, 31]].tolist()
    np.testing.assert_array_equal(part.batch(np.array([0, 1])).dense(12).numpy(), dense)
    np.testing.assert_array_equal(part.gene_totals(), dense.sum(axis=0))
    np.testing.assert_array_equal(part.library_sizes(), dense.sum(axis=1))


def test_rare_genes_are_left_out_and_depth_counts_the_others(
    adata: ad.AnnData, opener: Callable[..., CellSource]
) -> None:
    dense = adata.X.toarray()
    dense[2:, 6] = 0
    dense[:2, 6] = 5
    adata.X = sp.csr_matrix(dense)
    source = opener(adata, min_cells_per_gene=3)
    kept = np.delete(np.arange(12), 6)
    assert source.schema.genes == tuple(adata.var_names[kept])
    np.testing.assert_array_equal(source.library_sizes(), dense[:, kept].sum(axis=1))
    np.testing.assert_array_equal(source.batch(np.arange(60)).dense(11).numpy(), dense[:, kept])
    assert source.coverage.share_of_umis_kept == pytest.approx(dense[:, kept].sum() / dense.sum())
    assert opener(adata, min_cells_per_gene=2).schema.n_genes == 12


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), n_dropped=st.integers(0, 6), n_extra=st.integers(0, 3))
def test_aligned_cells_do_not_depend_on_the_genes_of_the_file(seed: int, n_dropped: int, n_extra: int) -> None:
    random = np.random.default_rng(seed)
    dense = random.poisson(2.0, (8, 12)) + 1
    adata = ad.AnnData(sp.csr_matrix(dense.astype(np.float32)), var=pd.DataFrame(index=[f"G{i}" for i in range(12)]))
    schema = open_source(adata).schema
    order = random.permutation(12)[n_dropped:]
    extra = sp.csr_matrix(random.poisson(1.0, (8, n_extra)).astype(np.float32))
    names = [*adata.var_names[order], *(f"extra{i}" for i in range(n_extra))]
    other = ad.AnnData(sp.csr_matrix(sp.hstack([adata.X[:, order], extra])), var=pd.DataFrame(index=names))

    source = open_source(other, schema=schema)

    expected = dense.copy()
    lost = np.setdiff1d(np.arange(12), order)
    expected[:, lost] = 0
    np.testing.assert_array_equal(source.batch(np.arange(8)).dense(12).numpy(), expected)
    assert source.coverage.missing == tuple(f"G{i}" for i in lost)
    assert source.coverage.n_found == 12 - n_dropped
    assert source.coverage.share_of_umis_kept == pytest.approx(expected.sum() / other.X.sum())


def test_a_backed_file_is_aligned_too(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    schema = open_source(adata, **ATTRIBUTES).schema
    order = np.array([7, 2, 11, 0, 1, 3, 9, 8])
    source = opener(adata[:, order].copy(), schema=schema)
    expected = np.zeros((60, 12))
    expected[:, order] = adata.X.toarray()[:, order]
    np.testing.assert_array_equal(source.batch(np.arange(60)).dense(12).numpy(), expected)
    np.testing.assert_array_equal(source.gene_totals(), expected.sum(axis=0))
    assert source.coverage.missing == ("GENE4", "GENE5", "GENE6", "GENE10")


def test_genes_that_the_file_lacks_were_not_measured(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    schema = open_source(adata, **ATTRIBUTES).schema
    order = np.array([7, 2, 11, 0, 1, 3, 9, 8])
    source = opener(adata[:, order].copy(), schema=schema)
    batch = source.subset(np.arange(10, 50)).batch(np.array([3, 39, 3]))
    assert batch.measured.shape == (1, 12)
    assert np.flatnonzero(batch.measured[0]).tolist() == sorted(order)
    assert batch.stores.tolist() == [0, 0, 0]
    assert batch.measured_by_cell().shape == (3, 12)
    # A gene that was measured may well be zero, one that was not has no entries.
    assert batch.measured[0][batch.gene_ids].all()
    np.testing.assert_array_equal(batch.library_size, adata.X.toarray()[[13, 49, 13]][:, order].sum(axis=1))
    everything = opener(adata, schema=schema).batch(np.arange(3))
    assert everything.measured is everything.stores is None


def test_labels_are_read_fitted_and_encoded_once(
    adata: ad.AnnData, opener: Callable[..., CellSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def count(place: str) -> None:
        owner, name = place.rsplit(".", 1)
        function = getattr(pkgutil.resolve_name(owner), name)
        monkeypatch.setattr(place, lambda *given, **named: (calls.append(name), function(*given, **named))[1])

    for kind in ("CategoricalAttribute", "ContinuousAttribute"):
        count(f"scldm.data.attributes.{kind}.fit")
        count(f"scldm.data.attributes.{kind}.encode")
    count("scldm.data.stores.memory.read_obs")
    count("scldm.data.stores.h5ad.read_obs")
    source = opener(adata, **ATTRIBUTES)
    assert (calls.count("fit"), calls.count("encode")) == (3, 3)
    assert calls.count("read_obs") <= 1
    calls.clear()
    opener(adata, schema=source.schema)
    assert (calls.count("fit"), calls.count("encode")) == (0, 3)
    assert calls.count("read_obs") <= 1


def test_a_source_can_be_pickled_after_use(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    source, cells = opener(adata, **ATTRIBUTES), np.array([4, 2])
    before = source.batch(cells)
    assert is_same(pickle.loads(pickle.dumps(source)).batch(cells), before)


def test_codes_follow_the_schema_and_not_the_file(adata: ad.AnnData) -> None:
    schema = open_source(adata, **ATTRIBUTES).schema
    part = adata[adata.obs["cell_type"] == "B cell"].copy()
    part.obs["batch"] = part.obs["batch"].astype(float).astype("category")
    batch = open_source(part, schema=schema).batch(np.arange(part.n_obs))
    assert (batch.categorical[:, 0] == schema.categorical[0].categories.index("B cell")).all()
    assert (batch.categorical[:, 1].numpy() == part.obs["batch"].astype(int).to_numpy() - 1).all()


def test_unlabelled_cells_need_permission(adata: ad.AnnData) -> None:
    schema = open_source(adata, **ATTRIBUTES).schema
    adata.obs["batch"] = "unseen batch"
    with pytest.raises(UserError, match="'unseen batch' is not a value of 'batch'"):
        open_source(adata, schema=schema)
    del adata.obs["age"]
    with pytest.raises(UserError, match="no obs column 'age'"):
        open_source(adata, schema=schema)

    source = open_source(adata, schema=schema, missing_labels="unlabelled")

    batch = source.batch(np.arange(60))
    assert (batch.categorical[:, 1] == -1).all()
    assert (batch.categorical[:, 0] >= 0).all()
    assert torch.isnan(batch.continuous).all()
    assert source.obs["batch"].isna().all()
    assert source.obs["age"].isna().all()


def test_labels_and_further_columns_are_in_obs(adata: ad.AnnData) -> None:
    source = open_source(adata, **ATTRIBUTES, keep_columns=["treated", "age"])
    assert list(source.obs.columns) == ["cell_type", "batch", "age", "treated"]
    assert source.obs["batch"].cat.categories.tolist() == ["1", "2", "3"]
    np.testing.assert_array_equal(source.obs["age"], adata.obs["age"])
    np.testing.assert_array_equal(source.obs["treated"], adata.obs["treated"])
    with pytest.raises(UserError, match="no obs column 'donor'"):
        open_source(adata, keep_columns=["donor"])


def test_changing_the_data_afterwards_does_not_change_the_source(adata: ad.AnnData) -> None:
    expected = adata.X.toarray().copy()
    source = open_source(adata)
    np.log1p(adata.X.data, out=adata.X.data)
    np.testing.assert_array_equal(source.batch(np.arange(60)).dense(12).numpy(), expected)


@pytest.mark.parametrize("backed", [False, True])
def test_counts_are_found_in_layers_and_raw_of_files(adata: ad.AnnData, tmp_path: Path, backed: bool) -> None:
    path = tmp_path / "cells.h5ad"
    counts = adata.X.toarray()
    adata.raw = ad.AnnData(adata.X.copy(), var=adata.var.rename(index=str.lower))
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    adata.write_h5ad(path)

    layer = open_source(path, layer="counts", backed=backed)
    raw = open_source(path, layer="raw", backed=backed)

    np.testing.assert_array_equal(layer.batch(np.arange(60)).dense(12).numpy(), counts)
    np.testing.assert_array_equal(raw.batch(np.arange(60)).dense(12).numpy(), counts)
    assert raw.schema.genes[0] == "gene0"
    with pytest.raises(UserError, match=r"log-normalised.*which are in layer 'counts' and raw"):
        open_source(path, backed=backed)
    with pytest.raises(UserError, match="no layer 'cuonts'; did you mean 'counts'"):
        open_source(path, layer="cuonts", backed=backed)


def test_cells_that_lose_all_counts_are_refused(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    dense = adata.X.toarray()
    dense[:2] = 0
    dense[:, 3] = 0
    dense[:2, 3] = 4
    adata.X = sp.csr_matrix(dense)
    with pytest.raises(UserError, match="2 of 60 cells have no counts on genes expressed in 3 or more cells"):
        opener(adata)
    schema = open_source(adata[2:].copy(), min_cells_per_gene=0).schema
    adata.var.index = adata.var_names.where(adata.var_names != "GENE3", "other")
    with pytest.raises(UserError, match="2 of 60 cells have no counts on the genes of the model"):
        opener(adata, schema=schema)


def test_empty_cells_and_bad_values_are_refused(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    adata.X = adata.X.astype(np.float64)
    adata.X.data[-1] = 0.5
    with pytest.raises(UserError, match="X holds values that are not integers"):
        opener(adata)
    adata.X.data[:] = np.rint(adata.X.data)
    adata.X = sp.csr_matrix(adata.X.toarray() * (np.arange(60) != 9)[:, None])
    with pytest.raises(UserError, match="1 of 60 cells have no counts; remove"):
        opener(adata)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_gene_names_are_refused(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    adata.var.index = ["A", "B", "A", *(f"G{i}" for i in range(9))]
    with pytest.raises(UserError, match="1 gene names occur more than once, for example 'A'"):
        opener(adata)


def test_labels_are_refused_before_counts_are_read(adata: ad.AnnData, opener: Callable[..., CellSource]) -> None:
    adata.X = adata.X * 0.5
    with pytest.raises(UserError, match="no obs column 'celltype'; did you mean 'cell_type'"):
        opener(adata, categorical=["celltype"])


def test_options_that_do_not_fit_are_refused(adata: ad.AnnData, h5ad: Path) -> None:
    with pytest.raises(UserError, match="missing_labels is 'drop'; allowed: 'error', 'unlabelled'"):
        open_source(adata, missing_labels="drop")
    with pytest.raises(UserError, match=r"backed reading needs a whole \.h5ad file"):
        open_source(adata, backed=True)
    with pytest.raises(UserError, match=r"backed reading needs a whole \.h5ad file"):
        open_source(ad.read_h5ad(h5ad, backed="r")[:10], backed=True)
    with pytest.raises(UserError, match="no gene of X is expressed in 61 or more cells"):
        open_source(adata, min_cells_per_gene=61)
    schema = open_source(adata, categorical=["batch"]).schema
    with pytest.raises(UserError, match="'cell_type' is not an attribute of the model; allowed: 'batch'"):
        open_source(adata, schema=schema, categorical=["cell_type"])
    with pytest.raises(UserError, match="the data has 2 of the 12 genes of the model, fewer than 50%"):
        open_source(adata[:, :2].copy(), schema=schema)


def test_a_backed_view_is_read_into_memory(adata: ad.AnnData, h5ad: Path) -> None:
    source = open_source(ad.read_h5ad(h5ad, backed="r")[20:40])
    np.testing.assert_array_equal(source.batch(np.arange(20)).dense(12).numpy(), adata.X.toarray()[20:40])


@pytest.mark.parametrize("backed", [False, True])
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, backed: bool) -> None:
    with pytest.raises(UserError, match=r"there is no file '.*missing.h5ad'"):
        open_source(tmp_path / "missing.h5ad", backed=backed)
    with pytest.raises(UserError, match=r"is a directory, not an \.h5ad file"):
        open_source(str(tmp_path), backed=backed)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"is not an \.h5ad file"):
        open_source(tmp_path / "table.csv", backed=backed)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["matrix"] = np.eye(3)
    with pytest.raises(UserError, match=r"is an HDF5 file but not an \.h5ad"):
        open_source(tmp_path / "other.h5", backed=backed)
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        file["obs"] = file["var"] = np.zeros(3)
    with pytest.raises(UserError, match="very old anndata"):
        open_source(tmp_path / "old.h5ad", backed=backed)


def test_columns_on_disk_are_read_into_memory_only(adata: ad.AnnData, tmp_path: Path) -> None:
    expected = adata.X.toarray()
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "columns.h5ad")
    source = open_source(tmp_path / "columns.h5ad")
    np.testing.assert_array_equal(source.batch(np.arange(60)).dense(12).numpy(), expected)
    with pytest.raises(UserError, match=r"stored by columns \(CSC\).*convert it to CSR.*--data.backed"):
        open_source(tmp_path / "columns.h5ad", backed=True)


@pytest.mark.parametrize("backed", [False, True])
def test_the_demo_needs_no_path(backed: bool) -> None:
    source = open_source("demo", categorical=["cell_type", "phase"], backed=backed)
    assert source.n_cells == 700
    assert source.schema.n_categories == (10, 3)
    assert source.store.locality is None

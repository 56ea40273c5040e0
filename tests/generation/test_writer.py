from __future__ import annotations

import itertools

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.sparse as sp

from scldm.errors import UserError
from scldm.files import check_file_can_be_made
from scldm.generation.header import CellsHeader
from scldm.generation.request import GenerationRequest
from scldm.generation.writer import CellBlock, collect_cells, write_cells

GENES = ("alpha", "beta", "gamma", "delta")


def header_of(n_cells: int = 6) -> CellsHeader:
    kinds = pd.Categorical(["T cell", "B cell"] * (n_cells // 2), categories=["B cell", "T cell", "never asked for"])
    obs = pd.DataFrame({"cell_type": kinds, "age": np.linspace(20, 60, n_cells)})
    return CellsHeader(obs, GENES, 3, {"seed": 1, "solver": "heun", "guidance": {"cell_type": 2.0}})


def blocks_of(*sizes: int) -> list[CellBlock]:
    random = np.random.default_rng(0)
    counts = sp.csr_matrix(random.poisson(0.8, (sum(sizes), 4)).astype(np.float32))
    latents = random.normal(size=(sum(sizes), 3)).astype(np.float32)
    edges = np.cumsum((0, *sizes)).tolist()
    return [CellBlock(counts[a:b], latents[a:b]) for a, b in itertools.pairwise(edges)]


def assert_equal(first: ad.AnnData, second: ad.AnnData) -> None:
    assert first.shape == second.shape
    assert (first.X != second.X).nnz == 0
    pd.testing.assert_frame_equal(first.obs, second.obs)
    pd.testing.assert_frame_equal(first.var, second.var)
    np.testing.assert_array_equal(first.obsm["X_scldm"], second.obsm["X_scldm"])
    assert set(first.uns) == set(second.uns) == {"scldm"}
    assert set(first.obsm) == set(second.obsm) == {"X_scldm"}
    for key, value in first.uns["scldm"].items():
        assert second.uns["scldm"][key] == value


@pytest.mark.parametrize("sizes", [(6,), (2, 3, 1), (1,) * 6])
def test_file_holds_what_is_collected_in_memory(tmp_path, sizes):
    path = tmp_path / "new" / "cells.h5ad"
    write_cells(path, header_of(), blocks_of(*sizes))
    assert_equal(ad.read_h5ad(path), collect_cells(header_of(), blocks_of(6)))
    assert [p.name for p in path.parent.iterdir()] == ["cells.h5ad"]


@pytest.fixture(scope="module")
def generated(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "cells.h5ad"
    conditions = {"cell_type": ["T cell", "B cell"] * 100, "age": 40.0}
    options = {"conditions": conditions, "steps": 2, "guidance": {"cell_type": 2.0}}
    trained.sample_to_file(path, GenerationRequest.build(trained.schema, **options), batch_size=128)
    return path, trained.sample(**options), trained


def test_generated_file_equals_the_cells_in_memory(generated):
    assert_equal(ad.read_h5ad(generated[0]), generated[1])


def test_generated_cells_keep_the_contract(generated):
    path, _, model = generated
    cells = ad.read_h5ad(path)
    assert isinstance(cells.X, sp.csr_matrix)
    assert cells.X.dtype == np.float32
    assert cells.X.has_canonical_format
    assert (cells.X.data == np.round(cells.X.data)).all()
    assert cells.X.data.min() > 0
    assert cells.obs_names.is_unique
    assert cells.var_names.tolist() == list(model.schema.genes)
    # Only what was asked for.
    assert cells.obs.columns.tolist() == ["cell_type", "age"]
    assert cells.obs["cell_type"].cat.categories.tolist() == list(model.schema.categorical[0].categories)
    assert cells.obs["age"].unique().tolist() == pytest.approx([40.0])
    assert cells.obsm["X_scldm"].shape == (200, 8)
    assert (len(cells.layers), len(cells.obsp), len(cells.varm), cells.raw) == (0, 0, 0, None)


def test_provenance_is_complete_and_has_no_nulls(generated):
    path, _, model = generated
    record = ad.read_h5ad(path).uns["scldm"]
    assert record["model_hash"] == model.hash()
    assert (record["seed"], record["steps"], record["solver"], record["n_cells"]) == (0, 2, "heun", 200)
    assert (record["depth"], record["conditions"]) == ("generated", "cell_type,age")
    assert (record["guidance_mode"], record["guidance"]) == ("additive", {"cell_type": 2.0})
    with h5py.File(path) as file:
        encodings = []
        file.visititems(lambda _, item: encodings.append(item.attrs.get("encoding-type", "")))
    assert not {"null", "nullable-string-array", "nullable-integer", "nullable-boolean"} & set(encodings)


def test_file_can_be_read_backed_and_by_scanpy(generated):
    backed = ad.read_h5ad(generated[0], backed="r")
    assert backed[:5].to_memory().X.sum() == generated[1][:5].X.sum()
    backed.file.close()
    cells = scanpy.read_h5ad(generated[0])
    scanpy.pp.normalize_total(cells, target_sum=1e4)
    totals = np.asarray(cells.X.sum(1)).ravel()
    np.testing.assert_allclose(totals[totals > 0], 1e4, rtol=1e-4)


def test_failure_in_the_middle_leaves_nothing(tmp_path):
    def dying():
        yield from blocks_of(3)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_cells(tmp_path / "cells.h5ad", header_of(), dying())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sizes", [(2, 4), (2, 2, 2)])
def test_failure_of_the_writing_itself_is_told_and_leaves_nothing(tmp_path, sizes):
    """In the last block, and in one that others follow: blocks are written by another thread."""
    blocks = list(blocks_of(*sizes))
    blocks[1] = CellBlock(blocks[1].counts, blocks[1].latents[:, :-1])
    with pytest.raises(TypeError, match="broadcast"):
        write_cells(tmp_path / "cells.h5ad", header_of(), blocks)
    assert list(tmp_path.iterdir()) == []


def test_failure_in_the_middle_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "cells.h5ad"
    path.write_text("precious")
    with pytest.raises(RuntimeError, match="3 cells came, 6 were announced"):
        write_cells(path, header_of(), blocks_of(3), overwrite=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_existing_file_is_replaced_only_on_demand(tmp_path):
    path = tmp_path / "cells.h5ad"
    path.write_text("precious")
    with pytest.raises(UserError, match=r"cells.h5ad' exists already; pass --overwrite"):
        write_cells(path, header_of(), blocks_of(6))
    assert path.read_text() == "precious"
    write_cells(path, header_of(), blocks_of(6), overwrite=True)
    assert ad.read_h5ad(path).n_obs == 6


def test_impossible_destinations_are_refused_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "directory.h5ad").mkdir()
    for path, message in (
        (tmp_path / "cells.csv", "must end in .h5ad"),
        (tmp_path / "directory.h5ad", "is a directory"),
        (tmp_path / "file" / "cells.h5ad", "cannot be written"),
    ):
        with pytest.raises(UserError, match=message):
            check_file_can_be_made(path, overwrite=True)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="no permission to write"):
        check_file_can_be_made(tmp_path / "cells.h5ad", overwrite=False)

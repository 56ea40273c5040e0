"""Files whose parts do not fit together: one sentence that names the file, never a crash of the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem

from scldm.data import open_source
from scldm.data.counts import read_counts
from scldm.data.h5ad import read_h5ad
from scldm.errors import UserError


def set_values(key: str, place: int | slice, value: int) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values = file[key][:]
        values[place] = value
        file[key][...] = values

    return change


def replaced(key: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values, attributes = file[key][:], dict(file[key].attrs)
        del file[key]
        file[key] = make(values)
        file[key].attrs.update(attributes)

    return change


def set_attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file["X"].attrs.__setitem__(name, value)


def drop(*keys: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for key in keys:
            del file[key]

    return change


def link(key: str, target: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = target

    return change


def unwritten(file: h5py.File) -> None:
    del file["X"]
    file.create_dataset("X", shape=(60, 2**40), dtype="f4", chunks=(1, 2**16))
    file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


DAMAGE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "pointer far away": (set_values("X/indptr", 20, 10**7), "row pointers"),
    "pointer negative": (set_values("X/indptr", 20, -1), "row pointers"),
    "first pointer": (set_values("X/indptr", 0, 1), "row pointers"),
    "last pointer": (set_values("X/indptr", -1, 5), "row pointers"),
    "too few pointers": (replaced("X/indptr", lambda v: v[:-1]), "row pointers for"),
    "no pointers": (replaced("X/indptr", lambda v: v[:0]), "row pointers for"),
    "fractional pointers": (replaced("X/indptr", lambda v: v + 0.5), "not integers"),
    "index far away": (set_values("X/indices", 5, 4000), "index|indices lie"),
    "index negative": (set_values("X/indices", 5, -3), "index|indices lie"),
    "fewer indices": (replaced("X/indices", lambda v: v[:-2]), "values and"),
    "indices of text": (replaced("X/indices", lambda v: v.astype("S5")), "not integers"),
    "huge unsigned index": (replaced("X/indices", lambda v: v.astype("u8") + 2**63), "index|indices lie"),
    "values of text": (replaced("X/data", lambda v: v.astype("S5")), "not numbers"),
    "values two-dimensional": (replaced("X/data", lambda v: v[None]), "no 'data'"),
    "no data": (drop("X/data"), "no 'data'"),
    "no indices": (drop("X/indices"), "no 'indices'"),
    "no shape": (lambda file: file["X"].attrs.__delitem__("shape"), "no shape"),
    "shape of text": (set_attribute("shape", "many"), "no shape"),
    "shape negative": (set_attribute("shape", [-60, 12]), "no shape"),
    "shape too large": (set_attribute("shape", [2**40, 12]), "row pointers for"),
    "fewer columns": (set_attribute("shape", [60, 5]), "columns for 12 genes"),
    "unknown encoding": (set_attribute("encoding-type", "coo_matrix"), "'coo_matrix'"),
    "no encoding": (lambda file: file["X"].attrs.__delitem__("encoding-type"), "does not say how it is stored"),
    "dangling link": (link("X", h5py.SoftLink("/nothing")), "cannot be read"),
    "link to another file": (link("X", h5py.ExternalLink("nowhere.h5ad", "/X")), "cannot be read"),
    "link to itself": (link("X", h5py.SoftLink("/X")), "cannot be read"),
    "a table for a matrix": (link("X", h5py.SoftLink("/obs")), "stored as .dataframe."),
    "one dimension": (link("X", np.ones(5)), "not a matrix"),
    "layers a number": (link("layers", np.ones(5)), "cannot be read"),
    "never written": (unwritten, "does not hold"),
    "no index of genes": (drop("var/_index"), "cannot be read"),
    "no index of cells": (drop("obs/_index"), "cannot be read"),
}


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_name(h5ad: Path, damage: str, backed: bool) -> None:
    change, fragment = DAMAGE[damage]
    with h5py.File(h5ad, "r+") as file:
        change(file)
    with pytest.raises(UserError, match=fragment) as refusal:
        open_source(h5ad, backed=backed)
    assert str(h5ad) in str(refusal.value)
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("damage", ["pointer far away", "index far away", "fewer indices", "never written"])
@pytest.mark.parametrize("place", ["X", "layers/counts", "obsp/neighbours"])
def test_a_damaged_matrix_anywhere_is_refused_before_anndata_reads_it(tmp_path, adata, damage, place):
    adata.layers["counts"] = adata.X.copy()
    adata.obsp["neighbours"] = sp.eye(adata.n_obs, format="csr")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:
        if place != "X":
            file.move("X", "kept")
            file.move(place, "X")
        DAMAGE[damage][0](file)
        if place != "X":
            file.move("X", place)
            file.move("kept", "X")
    with pytest.raises(UserError, match=r"cells\.h5ad"):
        read_h5ad(tmp_path / "cells.h5ad")


def as_old_format(file: h5py.File) -> None:
    attributes = file["X"].attrs
    attributes["h5sparse_format"], attributes["h5sparse_shape"] = "csr", attributes["shape"]
    for name in ("encoding-type", "encoding-version", "shape"):
        del attributes[name]


READABLE: dict[str, Callable[[h5py.File], None]] = {
    "as it is": lambda file: None,
    "unsigned indices": replaced("X/indices", lambda v: v.astype("u8")),
    "unsigned pointers": replaced("X/indptr", lambda v: v.astype("u8")),
    "short indices": replaced("X/indices", lambda v: v.astype("i2")),
    "half precision": replaced("X/data", lambda v: v.astype("f2")),
    "other byte order": replaced("X/data", lambda v: v.astype(">f4")),
    "integers of another byte order": replaced("X/data", lambda v: v.astype(">i8")),
    "bytes": replaced("X/data", lambda v: v.astype("u1")),
    "old format": as_old_format,
}


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("how", READABLE)
def test_unusual_files_hold_the_same_counts(h5ad: Path, adata: ad.AnnData, how: str, backed: bool) -> None:
    with h5py.File(h5ad, "r+") as file:
        READABLE[how](file)
    source = open_source(h5ad, backed=backed, min_cells_per_gene=1)
    wanted = adata[:, list(source.schema.genes)].X.toarray()
    np.testing.assert_array_equal(source._read(np.arange(adata.n_obs)).toarray(), wanted)


@pytest.mark.parametrize("change", ["truncated", "other values", "other indices"])
def test_a_file_that_changes_while_it_is_read_is_named(h5ad: Path, change: str) -> None:
    source = open_source(h5ad, backed=True, min_cells_per_gene=1)
    if change == "truncated":
        h5ad.write_bytes(h5ad.read_bytes()[:-2000])
    else:
        with h5py.File(h5ad, "r+") as file:
            key, value = ("X/data", np.nan) if change == "other values" else ("X/indices", 10**6)
            file[key][...] = value
    with pytest.raises(UserError, match=r"cells\.h5ad") as refusal:
        source._read(np.arange(source.n_cells))
    assert str(h5ad) in str(refusal.value)


@pytest.mark.parametrize("unpack", [False, True])
def test_a_file_that_is_cut_off_while_it_is_read_is_not_read_as_zeros(tmp_path: Path, unpack: bool) -> None:
    path = tmp_path / "long.h5ad"
    counts = np.random.default_rng(0).poisson(2.0, (400, 50)).astype(np.float32) + 1
    ad.AnnData(sp.csr_matrix(counts)).write_h5ad(path)
    source = open_source(path, backed=True, min_cells_per_gene=1)
    source._read(np.arange(5))
    with path.open("r+b") as file:
        file.truncate(20_000)

    def read_all() -> None:
        for cell in range(400):
            source._read(np.array([cell]))

    with pytest.raises(UserError, match=r"long\.h5ad"):
        source.unpack(tmp_path / "counts") if unpack else read_all()
    assert not (tmp_path / "counts").exists()


@pytest.mark.parametrize("unpack", [False, True])
def test_other_counts_than_those_that_the_file_was_opened_with_are_refused(h5ad: Path, unpack: bool) -> None:
    source = open_source(h5ad, backed=True, min_cells_per_gene=1)
    with h5py.File(h5ad, "r+") as file:
        file["X/data"][...] = file["X/data"][...][::-1]
    with pytest.raises(UserError, match=r"X of '.*cells\.h5ad' changed after it was opened: cell '.*' had \d+ UMI"):
        source.unpack(h5ad.parent / "counts") if unpack else source._read(np.arange(source.n_cells))


@pytest.mark.parametrize("part", ["indptr", "indices"])
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_a_damaged_matrix_in_memory_is_refused(adata: ad.AnnData, part: str, kind: type) -> None:
    matrix = kind(adata.X)
    adata.X = matrix
    getattr(adata.X, part)[3] = 10**6
    with pytest.raises(UserError, match="damaged"):
        read_counts(adata)


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [(1.0000001, "rounding errors"), (0.37, "not integers"), (None, "log-normalised")],
)
def test_only_what_is_true_is_said_of_values_that_are_not_integers(adata, factor, sentence):
    counts = adata.X.toarray() * 10
    adata.X = np.log1p(counts) if factor is None else counts.astype(np.float64) * factor
    with pytest.raises(UserError, match=sentence) as refusal:
        read_counts(adata)
    assert ("log-normalised" in str(refusal.value)) == (factor is None)


@pytest.mark.parametrize("size", [0, 7, 2**40, 2**64 - 1])
@pytest.mark.parametrize("free", [True, False])
def test_a_heap_that_would_never_end_is_refused(h5ad: Path, size: int, free: bool) -> None:
    """The first object of the first heap of texts, or its free space, says that it is of an impossible size."""
    content = bytearray(h5ad.read_bytes())
    place = content.find(b"GCOL") + 16
    while free and int.from_bytes(content[place : place + 2], "little"):
        place += 16 + (int.from_bytes(content[place + 8 : place + 16], "little") + 7) // 8 * 8
    if not free and size < 2**40:
        pytest.skip("an object may be small")
    content[place + 8 : place + 16] = size.to_bytes(8, "little")
    h5ad.write_bytes(content)
    with pytest.raises(UserError, match="heap of texts"):
        open_source(h5ad)


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("n_rows", [59, 61])
@pytest.mark.parametrize("dense", [False, True])
def test_rows_that_do_not_match_the_cells_are_refused(h5ad: Path, adata: ad.AnnData, n_rows, dense, backed) -> None:
    """Or counts would be trained on under the labels of other cells."""
    rows = adata.X.toarray()[np.arange(n_rows) % 60]
    with h5py.File(h5ad, "r+") as file:
        del file["X"]
        write_elem(file, "X", rows if dense else sp.csr_matrix(rows))
    with pytest.raises(UserError, match=f"X has {n_rows} rows for the 60 cells of obs"):
        open_source(h5ad, backed=backed)


@pytest.mark.parametrize("dtype", ["S3", "c16", [("a", "f4"), ("b", "f4")]], ids=["text", "complex", "compound"])
@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_values_that_are_no_numbers_are_called_so(tmp_path: Path, dtype: object, backed: bool, dense: bool) -> None:
    path = tmp_path / "cells.h5ad"
    matrix = np.ones((6, 4), dtype=np.float32)
    ad.AnnData(matrix if dense else sp.csr_matrix(matrix)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        key = "X" if dense else "X/data"
        attributes = dict(file[key].attrs)
        shape = file[key].shape
        del file[key]
        file[key] = np.zeros(shape, dtype=dtype)
        file[key].attrs.update(attributes)
    with pytest.raises(UserError, match=r"'X' holds values of type .*, not numbers"):
        open_source(path, backed=backed)


def test_names_in_bytes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    names = {axis: [f"{axis}{i}" for i in range(n)] for axis, n in (("obs", 6), ("var", 4))}
    ad.AnnData(np.ones((6, 4), dtype=np.float32)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for axis, texts in names.items():
            del file[f"{axis}/_index"]
            file[f"{axis}/_index"] = np.array([text.encode() for text in texts])
    for backed in (False, True):
        source = open_source(path, backed=backed, min_cells_per_gene=1)
        assert list(source.schema.genes) == names["var"]
        assert source.table.obs.index.tolist() == names["obs"]
    assert read_h5ad(path).obs_names.tolist() == names["obs"]


def test_a_column_of_several_values_per_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    cells = ad.AnnData(np.ones((6, 4), dtype=np.float32))
    cells.obs["kind"] = pd.Categorical(["a", "b", "c"] * 2)
    cells.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        codes, attributes = file["obs/kind/codes"][()], dict(file["obs/kind/codes"].attrs)
        del file["obs/kind/codes"]
        file["obs/kind/codes"] = codes[:, None]
        file["obs/kind/codes"].attrs.update(attributes)
    for read in (read_h5ad, lambda path: open_source(path, min_cells_per_gene=1)):
        with pytest.raises(UserError, match="the column 'kind' holds several values for one row"):
            read(path)


@pytest.mark.parametrize("part", ["uns/odd", "obsm/X_odd", "uns"])
def test_what_nobody_needs_is_left_out_where_it_cannot_be_read(tmp_path: Path, part: str) -> None:
    path = tmp_path / "cells.h5ad"
    cells = ad.AnnData(np.arange(1, 25, dtype=np.float32).reshape(6, 4), uns={"odd": {"a": 1}, "even": 2})
    cells.raw = cells
    cells.obsm["X_odd"], cells.obsm["X_even"] = np.ones((6, 2)), np.ones((6, 3))
    cells.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        if part == "uns":
            del file["uns"]
            file["uns"] = 3
        else:
            file[part].attrs["encoding-type"] = "of the future"
    with pytest.warns(UserWarning, match=f"{part} of '.*cells.h5ad' cannot be read and is left out"):
        found = read_h5ad(path)
    np.testing.assert_array_equal(found.X, cells.X)
    np.testing.assert_array_equal(found.raw.X, cells.X)
    assert found.obsm["X_even"].shape == (6, 3)
    assert ("X_odd" in found.obsm) == (part != "obsm/X_odd")
    assert found.uns.get("even") == (None if part == "uns" else 2)


@pytest.mark.parametrize("part", ["X", "obs/kind", "var", "raw/X"])
def test_what_is_needed_is_not_left_out(tmp_path: Path, part: str) -> None:
    path = tmp_path / "cells.h5ad"
    cells = ad.AnnData(np.ones((6, 4), dtype=np.float32), obs=pd.DataFrame({"kind": ["a"] * 6}, index=list("abcdef")))
    cells.raw = cells
    cells.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file[part].attrs["encoding-type"] = "of the future"
    with pytest.raises(UserError, match=r"cells\.h5ad"):
        read_h5ad(path)

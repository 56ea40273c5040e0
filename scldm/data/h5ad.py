"""Opening ``.h5ad`` files and finding the counts in them without reading them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import pandas as pd
from anndata.io import read_elem

from scldm.data.counts import CountTable, choose_place, looks_like_counts
from scldm.data.heaps import check_heaps
from scldm.data.labels import label_of
from scldm.data.stored import ENTRIES_AT_A_TIME, StoredMatrix, check_sizes, matrix_of
from scldm.errors import UserError

__all__ = ["counts_key", "find_counts_in_file", "open_h5ad", "read_h5ad", "read_obs", "reading"]

#: What cells are judged and split by, and what other programs have left beside it.
_NEEDED_PARTS = {"X", "obs", "var", "layers", "raw"}
_OTHER_PARTS = {"uns", "obsm", "varm", "obsp", "varp"}


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever reading a file raises into a ``UserError`` that names the file.

    A file can be damaged in any of its parts, or change while it is read: h5py and anndata raise nearly anything then.
    """
    try:
        yield
    except UserError as error:
        if f"'{os.fspath(path)}'" in str(error):
            raise
        raise UserError(f"in '{os.fspath(path)}': {error}") from error
    except (Exception, RecursionError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"'{os.fspath(path)}' cannot be read, it is damaged or not complete ({reason})") from error


@contextlib.contextmanager
def open_h5ad(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Open an ``.h5ad`` file for reading, and close it again.

    Raises
    ------
    UserError
        If that is not what the path leads to, or if anything goes wrong while it is read in the block.
    """
    path = Path(path)
    if path.is_dir():
        hint = "; zarr stores are not supported, write an .h5ad" if (path / ".zattrs").exists() else ""
        raise UserError(f"'{path}' is a directory, not an .h5ad file{hint}")
    if not path.exists():
        raise UserError(f"there is no file '{path}'")
    if not path.is_file():
        raise UserError(f"'{path}' is not a regular file")
    if not os.access(path, os.R_OK):
        raise UserError(f"the file '{path}' may not be read")
    if not h5py.is_hdf5(path):
        raise UserError(f"'{path}' is not an .h5ad file (it is not HDF5, or damaged)")
    check_heaps(path)
    with reading(path), h5py.File(path, "r") as file:
        if "obs" not in file or "var" not in file:
            raise UserError(f"'{path}' is an HDF5 file but not an .h5ad: it has no obs and var")
        if not all(isinstance(file[name], h5py.Group) for name in ("obs", "var")):
            raise UserError(f"'{path}' was written by a very old anndata; read it with scanpy and write it again")
        check_sizes(file)
        yield file


def counts_key(file: h5py.File, layer: str | None) -> str:
    """Return the HDF5 path of the counts; ``layer`` as in :func:`scldm.data.counts.read_counts`."""
    return _places(file)[_choose(file, layer)]


def find_counts_in_file(file: h5py.File, layer: str | None) -> CountTable:
    """Find the counts in an open file; ``layer`` as in :func:`scldm.data.counts.read_counts`."""
    places, where = _places(file), _choose(file, layer)

    def elsewhere() -> list[str]:
        return [p for p, key in places.items() if p != where and looks_like_counts(_matrix(file, key))]

    var = file["raw/var" if where == "raw" else "var"]
    matrix, genes = _matrix(file, places[where]), read_index(var)
    if matrix.shape[1] != len(genes):
        raise UserError(f"{where} has {matrix.shape[1]} columns for {len(genes)} genes")
    n_cells = len(read_index(file["obs"]))
    if matrix.shape[0] != n_cells:
        raise UserError(f"{where} has {matrix.shape[0]} rows for the {n_cells} cells of obs")
    return CountTable(matrix, genes, where, elsewhere)


def read_obs(file: h5py.File) -> pd.DataFrame:
    """Read the ``obs`` table."""
    try:
        obs = read_elem(file["obs"])
    except Exception as error:
        raise UserError(f"its obs cannot be read: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(obs, pd.DataFrame):
        raise UserError("its obs is not a table")
    return with_plain_text(obs)


def with_plain_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose text is of the type ``object``, in its index and its categories too.

    Newer pandas has types of its own for text, which anndata writes only when it is told to. Raises ``UserError`` if a
    column holds several values per row.
    """
    plain = frame.copy(deep=False)
    plain.index = _plain(frame.index)
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            if isinstance(column.cat.categories.dtype, pd.StringDtype):
                plain[name] = column.cat.rename_categories(list(_plain(column.cat.categories))).array
        elif column.dtype == object and _holds_lists(column):
            raise UserError(f"the column '{name}' holds several values for one row; it has to hold one")
        elif isinstance(column.dtype, pd.StringDtype):
            plain[name] = column.astype(object).where(column.notna(), None).array
    return plain


def _holds_lists(column: pd.Series) -> bool:
    is_text = pd.api.types.infer_dtype(column, skipna=True) == "string"
    return not is_text and any(pd.api.types.is_list_like(value) for value in column)


def _plain(index: pd.Index) -> pd.Index:
    if isinstance(index.dtype, pd.StringDtype):
        return index.astype(object)
    if pd.api.types.infer_dtype(index, skipna=True) == "bytes":
        return pd.Index([label_of(name) for name in index], dtype=object, name=index.name)
    return index


def read_index(frame: h5py.Group) -> pd.Index:
    """Read the index of a stored table and nothing else of it."""
    return _plain(pd.Index(read_elem(frame[frame.attrs.get("_index", "_index")]))).astype(str)


def _places(file: h5py.File) -> dict[str, str]:
    places = {f"layer '{name}'": f"layers/{name}" for name in file.get("layers", {})}
    if "X" in file:
        places["X"] = "X"
    if "raw/X" in file and "raw/var" in file:
        places["raw"] = "raw/X"
    return places


def _choose(file: h5py.File, layer: str | None) -> str:
    layers = list(file.get("layers", {}))
    places = _places(file)
    return choose_place(layer, layers, has_x="X" in places, has_raw="raw" in places)


def _matrix(file: h5py.File, key: str) -> StoredMatrix | h5py.Dataset:
    return matrix_of(file[key], key)


def read_h5ad(path: str | os.PathLike[str]) -> ad.AnnData:
    """Read a whole file.

    Raises
    ------
    UserError
        If its counts or tables cannot be read.

    Warns
    -----
    UserWarning
        If something else in it cannot be read, and is left out.
    """
    with open_h5ad(path) as file:
        # scipy reads beyond a matrix that is damaged: each is looked through before anndata makes one of it.
        file.visititems(_check_sparse_group)
    lost: list[str] = []
    with reading(path), warnings.catch_warnings():
        # Repeated names: of cells they do not matter, of genes they become an error.
        warnings.simplefilter("ignore", UserWarning)
        try:
            adata = ad.read_h5ad(path)
        except Exception:
            adata, lost = _read_what_can_be_read(path)
        adata.obs, adata.var = with_plain_text(adata.obs), with_plain_text(adata.var)
    if lost:
        warnings.warn(f"{', '.join(lost)} of '{os.fspath(path)}' cannot be read and is left out.", stacklevel=2)
    return adata


def _read_what_can_be_read(path: str | os.PathLike[str]) -> tuple[ad.AnnData, list[str]]:
    """Read a file without the parts that nobody needs if they cannot be read, and name these."""
    parts: dict[str, Any] = {}
    lost = []
    with open_h5ad(path) as file:
        for name in _NEEDED_PARTS & set(file):
            parts[name] = read_elem(file[name])
        for group in _OTHER_PARTS & set(file):
            if not isinstance(file[group], h5py.Group):
                lost.append(group)
                continue
            parts[group] = {}
            for name in file[group]:
                try:
                    parts[group][name] = read_elem(file[group][name])
                except Exception:
                    lost.append(f"{group}/{name}")
    return ad.AnnData(**parts), sorted(lost)


def _check_sparse_group(name: str, item: Any) -> None:
    if isinstance(item, h5py.Group) and {"data", "indices", "indptr"} <= set(item):
        matrix = StoredMatrix(item)
        for start in range(0, len(matrix.indices), ENTRIES_AT_A_TIME):
            matrix.checked_indices(matrix.indices[start : start + ENTRIES_AT_A_TIME])

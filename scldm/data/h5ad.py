"""Opening ``.h5ad`` files and finding the counts in them without reading them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import pandas as pd
from anndata.io import read_elem, sparse_dataset

from scldm.data.counts import CountTable, choose_place, looks_like_counts
from scldm.errors import UserError

__all__ = ["counts_key", "find_counts_in_file", "open_h5ad", "read_h5ad", "read_obs"]


def open_h5ad(path: str | os.PathLike[str]) -> h5py.File:
    """Open an ``.h5ad`` file for reading; raises ``UserError`` if that is not what the path leads to."""
    path = Path(path)
    if path.is_dir():
        hint = "; zarr stores are not supported, write an .h5ad" if (path / ".zattrs").exists() else ""
        raise UserError(f"'{path}' is a directory, not an .h5ad file{hint}")
    if not path.exists():
        raise UserError(f"there is no file '{path}'")
    if not os.access(path, os.R_OK):
        raise UserError(f"the file '{path}' may not be read")
    if not h5py.is_hdf5(path):
        raise UserError(f"'{path}' is not an .h5ad file (it is not HDF5, or damaged)")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"'{path}' cannot be opened: {error}") from error
    if "obs" not in file or "var" not in file:
        file.close()
        raise UserError(f"'{path}' is an HDF5 file but not an .h5ad: it has no obs and var")
    if not all(isinstance(file[name], h5py.Group) for name in ("obs", "var")):
        file.close()
        raise UserError(f"'{path}' was written by a very old anndata; read it with scanpy and write it again")
    return file


def counts_key(file: h5py.File, layer: str | None) -> str:
    """Return the HDF5 path of the counts; ``layer`` as in :func:`scldm.data.counts.read_counts`."""
    return _places(file)[_choose(file, layer)]


def find_counts_in_file(file: h5py.File, layer: str | None) -> CountTable:
    """Find the counts in an open file; ``layer`` as in :func:`scldm.data.counts.read_counts`."""
    places, where = _places(file), _choose(file, layer)

    def elsewhere() -> list[str]:
        return [place for place, key in places.items() if place != where and looks_like_counts(_matrix(file[key]))]

    var = file["raw/var" if where == "raw" else "var"]
    return CountTable(_matrix(file[places[where]]), read_index(var), where, elsewhere)


def read_obs(file: h5py.File) -> pd.DataFrame:
    """Read the ``obs`` table."""
    try:
        return read_elem(file["obs"])
    except Exception as error:
        raise UserError(f"the obs of '{file.filename}' cannot be read: {error}") from error


def read_index(frame: h5py.Group) -> pd.Index:
    """Read the index of a stored table and nothing else of it."""
    return pd.Index(read_elem(frame[frame.attrs.get("_index", "_index")]).astype(str))


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


def _matrix(item: Any) -> Any:
    return sparse_dataset(item) if isinstance(item, h5py.Group) else item


def read_h5ad(path: Path) -> ad.AnnData:
    """Read a whole file; raises ``UserError`` if that is not possible."""
    open_h5ad(path).close()
    with warnings.catch_warnings():
        # Repeated names: of cells they do not matter, of genes they become an error.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return ad.read_h5ad(path)
        except Exception as error:
            raise UserError(f"'{path}' cannot be read: {error}") from error

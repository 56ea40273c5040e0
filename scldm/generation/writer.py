"""Where generated cells go: an AnnData in memory, or an .h5ad written block by block."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem
from jaxtyping import Float32

from scldm.errors import UserError

__all__ = ["CellBlock", "CellsHeader", "check_other_file", "check_writable", "collect_cells", "write_cells"]

LATENTS_KEY = "X_scldm"


@dataclass(frozen=True, eq=False)
class CellBlock:
    """Consecutive generated cells.

    Attributes
    ----------
    counts
        UMI counts, cells x genes.
    latents
        Latent tokens, flattened; ``[cells, latents * channels]``.
    """

    counts: sp.csr_matrix
    latents: Float32[np.ndarray, "cells state"]


@dataclass(frozen=True, eq=False)
class CellsHeader:
    """Everything of a generated file that is known before its counts.

    Attributes
    ----------
    obs
        One row per cell, under a unique name, with the attributes asked for.
    genes
        Names of the columns.
    n_latent_channels
        Width of ``obsm["X_scldm"]``.
    uns
        Content of ``uns["scldm"]``: strings and numbers only.
    """

    obs: pd.DataFrame
    genes: tuple[str, ...]
    n_latent_channels: int
    uns: dict[str, Any]

    def var(self) -> pd.DataFrame:
        """``var``: gene names only."""
        return pd.DataFrame(index=pd.Index(self.genes, dtype=object))


def collect_cells(header: CellsHeader, blocks: Iterable[CellBlock]) -> ad.AnnData:
    """Gather blocks into an AnnData."""
    held = list(blocks)
    return ad.AnnData(
        X=sp.vstack([block.counts for block in held], format="csr"),
        obs=header.obs,
        var=header.var(),
        obsm={LATENTS_KEY: np.concatenate([block.latents for block in held])},
        uns={"scldm": header.uns},
    )


def check_writable(path: Path, overwrite: bool, suffix: str | None = ".h5ad") -> None:
    """Raise ``UserError`` unless a file can be written at ``path``; ask before work that takes long."""
    if suffix is not None and path.suffix != suffix:
        raise UserError(f"'{path}' must end in {suffix}.")
    if path.is_dir():
        raise UserError(f"'{path}' is a directory; name a file.")
    if path.exists() and not overwrite:
        raise UserError(f"'{path}' exists already; pass --overwrite (in Python: overwrite=True) to replace it.")
    parent = path.absolute().parent
    existing = next(p for p in (parent, *parent.parents) if p.exists())
    if not existing.is_dir():
        raise UserError(f"'{path}' cannot be written: '{existing}' is a file, not a directory.")
    if not os.access(existing, os.W_OK):
        raise UserError(f"'{path}' cannot be written: no permission to write in '{existing}'.")


def check_other_file(path: Path, data: Path | None) -> None:
    """Raise ``UserError`` if the destination is the file that is read: it would lose its counts."""
    if data is not None and path.exists() and data.exists() and path.samefile(data):
        raise UserError(f"'{path}' is the file that is read; write to another.")


def write_cells(path: Path, header: CellsHeader, blocks: Iterable[CellBlock], overwrite: bool = False) -> None:
    """Stream blocks into an ``.h5ad``; the file appears when it is complete, or not at all.

    Parameters
    ----------
    path
        Destination; its directory is made if missing.
    header, blocks
        The file's content; two blocks are in memory at a time.
    overwrite
        Replace an existing file.

    Raises
    ------
    UserError
        If the file exists or cannot be written.
    """
    check_writable(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with h5py.File(partial, "w") as file:
            _write(file, header, blocks)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(file: h5py.File, header: CellsHeader, blocks: Iterable[CellBlock]) -> None:
    file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
    n_cells = len(header.obs)
    for key in ("layers", "varm", "obsp", "varp"):
        write_elem(file, key, {})
    write_elem(file, "obs", header.obs)
    write_elem(file, "var", header.var())
    write_elem(file, "uns", {"scldm": header.uns})

    counts = file.create_group("X")
    counts.attrs["encoding-type"], counts.attrs["encoding-version"] = "csr_matrix", "0.1.0"
    counts.attrs["shape"] = np.array([n_cells, len(header.genes)])
    growing: dict[str, Any] = {
        "shape": (0,),
        "maxshape": (None,),
        "chunks": (65536,),
        "compression": "gzip",
        "compression_opts": 1,
    }
    data = counts.create_dataset("data", dtype=np.float32, **growing)
    indices = counts.create_dataset("indices", dtype=np.int32, **growing)
    write_elem(file, "obsm", {LATENTS_KEY: np.empty((0, header.n_latent_channels), dtype=np.float32)})
    del file["obsm"][LATENTS_KEY]
    latents = file["obsm"].create_dataset(LATENTS_KEY, shape=(n_cells, header.n_latent_channels), dtype=np.float32)
    latents.attrs["encoding-type"], latents.attrs["encoding-version"] = "array", "0.2.0"

    offsets = np.zeros(n_cells + 1, dtype=np.int64)

    def append(block: CellBlock, start: int) -> None:
        stop = start + block.counts.shape[0]
        first, last = len(data), len(data) + block.counts.nnz
        data.resize((last,))
        indices.resize((last,))
        data[first:last], indices[first:last] = block.counts.data, block.counts.indices
        offsets[start + 1 : stop + 1] = first + block.counts.indptr[1:]
        latents[start:stop] = block.latents

    start = 0
    written: Future[None] | None = None
    # A block is compressed and written while the next one is computed.
    with ThreadPoolExecutor(max_workers=1) as writing:
        for block in blocks:
            if written is not None:
                written.result()
            written = writing.submit(append, block, start)
            start += block.counts.shape[0]
        if written is not None:
            written.result()
    if start != n_cells:
        raise RuntimeError(f"{start} cells came, {n_cells} were announced")
    counts.create_dataset("indptr", data=offsets)

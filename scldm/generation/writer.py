"""Where generated cells go: an AnnData in memory, or an .h5ad written block by block."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scipy.sparse as sp
from anndata.io import write_elem
from jaxtyping import Float32

from scldm.data.writing import CheckedFile, open_for_writing
from scldm.files import atomic_file, check_file_can_be_made
from scldm.generation.header import CellsHeader

__all__ = ["LATENTS_KEY", "CellBlock", "collect_cells", "write_cells"]

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
    check_file_can_be_made(path, overwrite)
    with atomic_file(path) as partial, open_for_writing(partial) as file:
        _write(file, header, blocks)


def _write(file: CheckedFile, header: CellsHeader, blocks: Iterable[CellBlock]) -> None:
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
                file.check()
            written = writing.submit(append, block, start)
            start += block.counts.shape[0]
        if written is not None:
            written.result()
    if start != n_cells:
        raise RuntimeError(f"{start} cells came, {n_cells} were announced")
    counts.create_dataset("indptr", data=offsets)

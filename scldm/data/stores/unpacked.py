"""Counts in plain arrays on disk: a file that is too large for memory is unpacked once, and then read at random."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Int

from scldm.data.stores.base import Store
from scldm.files import atomic_directory

__all__ = ["UnpackedStore"]


class UnpackedStore(Store):
    """Rows of a count matrix, read through memory maps.

    A compressed file is decompressed chunk by chunk, and a chunk holds many cells: reading cells in random order undoes
    the same chunks over and over. Here a cell is six bytes for every gene it expresses, in one piece.

    The maps are opened when rows are first read, once in every process.

    Parameters
    ----------
    directory
        Where :meth:`write` has been.
    genes
        Names of the columns.
    """

    where = "the unpacked counts"

    def __init__(self, directory: str | os.PathLike[str], genes: pd.Index) -> None:
        self.directory = Path(directory)
        self.genes = genes
        self._offsets = np.load(self.directory / "offsets.npy")
        self.n_cells = len(self._offsets) - 1
        self._maps: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def write(
        cls, directory: str | os.PathLike[str], blocks: Iterable[sp.csr_matrix], genes: pd.Index
    ) -> UnpackedStore:
        """Write consecutive rows, and return them.

        Parameters
        ----------
        directory
            Appears when all rows are there; one that exists is replaced.
        blocks
            Canonical, one column for every gene; only one block is in memory at a time.
        genes
            Names of the columns.
        """
        lengths = [np.zeros(1, dtype=np.int64)]
        with (
            atomic_directory(Path(directory), overwrite=True) as partial,
            open(partial / "genes.bin", "wb") as columns,
            open(partial / "counts.bin", "wb") as counts,
        ):
            for block in blocks:
                # Not tofile, whose error for a full disk says nothing.
                columns.write(block.indices.astype(_column_type(len(genes))).data)
                counts.write(block.data.astype(np.float32).data)
                lengths.append(np.diff(block.indptr).astype(np.int64))
            np.save(partial / "offsets.npy", np.cumsum(np.concatenate(lengths)))
        return cls(directory, genes)

    @staticmethod
    def bytes_per_entry(n_genes: int) -> int:
        """Bytes on disk for every positive count."""
        return _column_type(n_genes).itemsize + np.dtype(np.float32).itemsize

    @property
    def n_entries(self) -> int:
        """Number of positive counts."""
        return int(self._offsets[-1])

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as the numbers that it maps.
        return {**self.__dict__, "_maps": None}

    def read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """See :meth:`Store.read`."""
        genes, counts = self._open()
        starts, stops = self._offsets[rows], self._offsets[rows + 1]
        pieces = list(zip(starts.tolist(), stops.tolist(), strict=True))
        indptr = np.concatenate([[0], np.cumsum(stops - starts)])
        data, indices = np.empty(indptr[-1], dtype=np.float32), np.empty(indptr[-1], dtype=np.int32)
        for at, (start, stop) in zip(indptr[:-1].tolist(), pieces, strict=True):
            data[at : at + stop - start] = counts[start:stop]
            indices[at : at + stop - start] = genes[start:stop]
        matrix = sp.csr_matrix((data, indices, indptr), shape=(len(rows), len(self.genes)))
        # They were written so: no need to look.
        matrix.has_canonical_format = True
        return matrix

    def _open(self) -> tuple[np.ndarray, np.ndarray]:
        if self._maps is None:
            files = (("genes.bin", _column_type(len(self.genes))), ("counts.bin", np.dtype(np.float32)))
            genes, counts = (
                # Views as plain arrays: slices of a memmap are slow to make.
                np.asarray(np.memmap(self.directory / name, dtype=dtype, mode="r", shape=(self._offsets[-1],)))
                for name, dtype in files
            )
            self._maps = (genes, counts)
        return self._maps


def _column_type(n_genes: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if n_genes <= 2**16 else np.int32)

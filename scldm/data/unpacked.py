"""Cells in plain arrays on disk: what a file too large for memory is unpacked into once, to be read at random after."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from scldm.data.alignment import GeneCoverage
from scldm.data.schema import DatasetSchema
from scldm.data.source import CellTable, IndexedSource

__all__ = ["UnpackedRows", "UnpackedSource"]


class UnpackedRows:
    """Rows of a count matrix, read through memory maps.

    A compressed file is decompressed chunk by chunk, and a chunk holds many cells: reading cells in random order undoes
    the same chunks over and over. Here a cell is six bytes for every gene it expresses, in one piece.

    The maps are opened when rows are first read, once in every process, so the object can be sent to the workers of a
    ``DataLoader`` by fork or by pickle.

    Parameters
    ----------
    directory
        Where :meth:`write` has been.
    n_genes
        Columns of the matrix.
    """

    def __init__(self, directory: str | os.PathLike[str], n_genes: int) -> None:
        self.directory = Path(directory)
        self.n_genes = n_genes
        self._offsets = np.load(self.directory / "offsets.npy")
        self._maps: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def write(cls, directory: str | os.PathLike[str], blocks: Iterable[sp.csr_matrix], n_genes: int) -> UnpackedRows:
        """Write consecutive rows, and return them.

        Parameters
        ----------
        directory
            Made if missing. The offsets are written last: rows without them are unfinished.
        blocks
            Canonical, with ``n_genes`` columns; only one is in memory at a time.
        n_genes
            Columns of the matrix.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "offsets.npy").unlink(missing_ok=True)
        lengths = [np.zeros(1, dtype=np.int64)]
        with open(directory / "genes.bin", "wb") as genes, open(directory / "counts.bin", "wb") as counts:
            for block in blocks:
                # Not tofile, whose error for a full disk says nothing.
                genes.write(block.indices.astype(_gene_type(n_genes)).data)
                counts.write(block.data.astype(np.float32).data)
                lengths.append(np.diff(block.indptr).astype(np.int64))
        partial = directory / "offsets.partial.npy"
        np.save(partial, np.cumsum(np.concatenate(lengths)))
        os.replace(partial, directory / "offsets.npy")
        return cls(directory, n_genes)

    @staticmethod
    def bytes_per_entry(n_genes: int) -> int:
        """Bytes on disk for every positive count."""
        return _gene_type(n_genes).itemsize + np.dtype(np.float32).itemsize

    @staticmethod
    def is_complete(directory: str | os.PathLike[str]) -> bool:
        """Whether :meth:`write` finished there."""
        return (Path(directory) / "offsets.npy").is_file()

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as the numbers that it maps.
        return {**self.__dict__, "_maps": None}

    def read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Return rows in the order asked for."""
        genes, counts = self._open()
        starts, stops = self._offsets[rows], self._offsets[rows + 1]
        pieces = list(zip(starts.tolist(), stops.tolist(), strict=True))
        indptr = np.concatenate([[0], np.cumsum(stops - starts)])
        data, indices = np.empty(indptr[-1], dtype=np.float32), np.empty(indptr[-1], dtype=np.int32)
        for at, (start, stop) in zip(indptr[:-1].tolist(), pieces, strict=True):
            data[at : at + stop - start] = counts[start:stop]
            indices[at : at + stop - start] = genes[start:stop]
        matrix = sp.csr_matrix((data, indices, indptr), shape=(len(rows), self.n_genes))
        # They were written so: no need to look.
        matrix.has_canonical_format = True
        return matrix

    def _open(self) -> tuple[np.ndarray, np.ndarray]:
        if self._maps is None:
            files = (("genes.bin", _gene_type(self.n_genes)), ("counts.bin", np.dtype(np.float32)))
            genes, counts = (
                # Views as plain arrays: slices of a memmap are slow to make.
                np.asarray(np.memmap(self.directory / name, dtype=dtype, mode="r", shape=(self._offsets[-1],)))
                for name, dtype in files
            )
            self._maps = (genes, counts)
        return self._maps


def _gene_type(n_genes: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if n_genes <= 2**16 else np.int32)


class UnpackedSource(IndexedSource):
    """Cells in plain arrays on disk.

    Parameters
    ----------
    unpacked
        Their counts over the genes of the schema.
    schema, table, coverage, rows
        As in :class:`scldm.data.source.IndexedSource`.
    """

    def __init__(
        self,
        unpacked: UnpackedRows,
        schema: DatasetSchema,
        table: CellTable,
        coverage: GeneCoverage,
        rows: Int[np.ndarray, " cells"] | None = None,
    ) -> None:
        super().__init__(schema, table, coverage, rows)
        self._unpacked = unpacked

    def read_rows(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Copy rows out of the arrays."""
        return self._unpacked.read(rows)

    def _with_rows(self, rows: Int[np.ndarray, " cells"]) -> UnpackedSource:
        return UnpackedSource(self._unpacked, self._schema, self._table, self._coverage, rows)

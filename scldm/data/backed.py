"""Cells that stay in their file: rows are read when a batch asks for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Float64, Int, Int64
from tqdm import tqdm

from scldm.data.alignment import GeneCoverage, align_columns
from scldm.data.counts import CountTable, canonical, check_counts
from scldm.data.schema import DatasetSchema
from scldm.data.source import CellTable, IndexedSource
from scldm.data.unpacked import UnpackedRows, UnpackedSource
from scldm.errors import UserError

__all__ = ["BackedSource", "StoredRows"]

# Reading over a gap of this many entries is cheaper than a second read.
GAP = 4096
ENTRIES_AT_A_TIME = 2**24


class StoredRows:
    """Rows of a matrix in an HDF5 file, stored as CSR or dense.

    The file is opened when rows are first read, once in every process, so the object can be sent to the workers of a
    ``DataLoader`` by fork or by pickle.

    Parameters
    ----------
    path
        The file.
    key
        Path of the matrix in the file.

    Raises
    ------
    UserError
        If the matrix is stored by columns.
    """

    def __init__(self, path: str | os.PathLike[str], key: str) -> None:
        self.path = os.path.abspath(path)
        self.key = key
        self._file: h5py.File | None = None
        self._process = -1
        with h5py.File(self.path, "r") as file:
            item = file[key]
            self._sparse = isinstance(item, h5py.Group)
            if self._sparse:
                if item.attrs.get("encoding-type") != "csr_matrix":
                    raise UserError(
                        f"'{key}' of '{path}' is stored by columns (CSC), so single cells cannot be read from it; "
                        "convert it to CSR, or read it into memory by dropping --data.backed"
                    )
                self.shape = (int(item.attrs["shape"][0]), int(item.attrs["shape"][1]))
                self._indptr = item["indptr"][:].astype(np.int64)
            else:
                self.shape = (int(item.shape[0]), int(item.shape[1]))
                self._indptr = np.arange(self.shape[0] + 1, dtype=np.int64) * self.shape[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_process": -1}

    def read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Return rows in the order asked for, values and columns as they are stored.

        What lies close together in the file is read at once, from the front to the back.
        """
        ordered = np.unique(rows)
        start, stop = self._indptr[ordered], self._indptr[ordered + 1]
        is_new_run = np.ones(len(ordered), dtype=bool)
        is_new_run[1:] = start[1:] - stop[:-1] > (GAP if self._sparse else 0)
        first = np.flatnonzero(is_new_run)
        last = np.append(first[1:], len(ordered))[: len(first)] - 1
        if not self._sparse:
            return self._read_dense(rows, ordered, first, last)
        run_start, run_stop = start[first], stop[last]
        group = self._item()
        values = _read_runs(group["data"], run_start, run_stop)
        columns = _read_runs(group["indices"], run_start, run_stop)
        # Where each row begins in what was read: its run's place there plus its place in the run.
        run_place = np.cumsum(run_stop - run_start) - (run_stop - run_start)
        run_of_row = np.cumsum(is_new_run) - 1
        place = run_place[run_of_row] + start - run_start[run_of_row]
        place = place[np.searchsorted(ordered, rows)]
        length = self._indptr[rows + 1] - self._indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(length)])
        take = np.arange(indptr[-1]) + np.repeat(place - indptr[:-1], length)
        return sp.csr_matrix((values[take], columns[take], indptr), shape=(len(rows), self.shape[1]))

    @property
    def n_entries(self) -> int:
        """Entries that are stored, of a dense matrix all: at least as many as there are positive counts."""
        return int(self._indptr[-1])

    def blocks(self) -> Iterator[tuple[int, sp.csr_matrix]]:
        """Yield all rows in order, in blocks of bounded size, each with the position of its first row."""
        start = 0
        while start < self.shape[0]:
            within = np.searchsorted(self._indptr, self._indptr[start] + ENTRIES_AT_A_TIME, side="right") - 1
            stop = min(self.shape[0], max(start + 1, int(within)))
            yield start, self.read(np.arange(start, stop))
            start = stop

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def _read_dense(self, rows: np.ndarray, ordered: np.ndarray, first: np.ndarray, last: np.ndarray) -> sp.csr_matrix:
        dataset = self._item()
        blocks = [sp.csr_matrix(dataset[ordered[a] : ordered[b] + 1]) for a, b in zip(first, last, strict=True)]
        if not blocks:
            return sp.csr_matrix((0, self.shape[1]), dtype=dataset.dtype)
        return sp.csr_matrix(sp.vstack(blocks, format="csr"))[np.searchsorted(ordered, rows)]

    def _item(self) -> Any:
        if self._file is None or self._process != os.getpid():
            # A handle that came through a fork belongs to the parent: forget it, never close it.
            self._file = h5py.File(self.path, "r")
            self._process = os.getpid()
        return self._file[self.key]


class BackedSource(IndexedSource):
    """Cells in a file.

    Parameters
    ----------
    stored
        The count matrix in the file.
    target
        For every column of the file the index of the gene in the schema, -1 if it is not there.
    schema, table, coverage, rows
        As in :class:`scldm.data.source.IndexedSource`.
    """

    def __init__(
        self,
        stored: StoredRows,
        target: Int64[np.ndarray, " file_genes"],
        schema: DatasetSchema,
        table: CellTable,
        coverage: GeneCoverage,
        rows: Int[np.ndarray, " cells"] | None = None,
    ) -> None:
        super().__init__(schema, table, coverage, rows)
        self._stored = stored
        self._target = target

    def read_rows(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Read rows of the file."""
        return align_columns(canonical(self._stored.read(rows)), self._target, self._schema.n_genes)

    def unpack(self, directory: str | os.PathLike[str]) -> None:
        """Write the counts of all cells of the file to plain arrays, over the genes of the schema.

        Raises
        ------
        UserError
            If the disk has no room for them.
        """
        needed = self._stored.n_entries * UnpackedRows.bytes_per_entry(self._schema.n_genes)
        os.makedirs(directory, exist_ok=True)
        if needed > (free := shutil.disk_usage(directory).free):
            raise UserError(
                f"the counts unpacked would take {needed / 1e9:,.1f} GB, and '{os.fspath(directory)}' has "
                f"{free / 1e9:,.1f} GB left; make room, choose another output, or read the file itself with "
                "--data.no-unpack (data.unpack: false)"
            )
        n_genes = self._schema.n_genes
        blocks = (
            align_columns(canonical(block), self._target, n_genes)
            for _, block in _with_progress(self._stored, "unpacking counts")
        )
        UnpackedRows.write(directory, blocks, n_genes)

    def unpacked(self, directory: str | os.PathLike[str]) -> UnpackedSource:
        """Return the same cells, read from where :meth:`unpack` has written them."""
        rows = UnpackedRows(directory, self._schema.n_genes)
        return UnpackedSource(rows, self._schema, self._table, self._coverage, self._rows)

    def _with_rows(self, rows: Int[np.ndarray, " cells"]) -> BackedSource:
        return BackedSource(self._stored, self._target, self._schema, self._table, self._coverage, rows)


def scan(
    stored: StoredRows, table: CountTable
) -> tuple[Float64[np.ndarray, " cells"], Int64[np.ndarray, " file_genes"]]:
    """Read a stored matrix once, check that it holds counts, and count.

    Returns
    -------
    totals
        UMI counts of every cell over all genes of the file.
    n_expressing
        Cells that express each gene of the file.
    """
    totals = np.zeros(stored.shape[0])
    n_expressing = np.zeros(stored.shape[1], dtype=np.int64)
    for start, block in _with_progress(stored, "checking counts"):
        check_counts(block.data, table.where, table.elsewhere)
        totals[start : start + block.shape[0]] = _row_sums(block)
        n_expressing += np.bincount(canonical(block).indices, minlength=stored.shape[1])
    return totals, n_expressing


def aligned_totals(stored: StoredRows, target: Int64[np.ndarray, " file_genes"]) -> Float32[np.ndarray, " cells"]:
    """Return the UMI counts of every cell over the genes that ``target`` keeps."""
    totals = np.zeros(stored.shape[0], dtype=np.float32)
    kept = (target >= 0).astype(np.float64)
    for start, block in _with_progress(stored, "measuring depth"):
        totals[start : start + block.shape[0]] = block @ kept
    return totals


def _with_progress(stored: StoredRows, what: str) -> Iterator[tuple[int, sp.csr_matrix]]:
    with tqdm(total=stored.shape[0], desc=what, unit="cell", unit_scale=True, disable=None, leave=False) as progress:
        for start, block in stored.blocks():
            yield start, block
            progress.update(block.shape[0])


def _row_sums(block: sp.csr_matrix) -> np.ndarray:
    return np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()


def _read_runs(dataset: h5py.Dataset, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    # Plain slices take a short cut in h5py that is many times faster than read_direct into one array.
    runs = [dataset[a:b] for a, b in zip(start.tolist(), stop.tolist(), strict=True)]
    return np.concatenate(runs) if runs else np.empty(0, dtype=dataset.dtype)

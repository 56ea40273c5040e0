"""Counts that stay in their ``.h5ad`` file: rows are read when a batch asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Int

from scldm.data.counts import canonical, check_counts, find_counts
from scldm.data.h5ad import counts_key, find_counts_in_file, open_h5ad, read_obs, reading
from scldm.data.stored import StoredMatrix, native
from scldm.data.stores.base import CellData, Store
from scldm.errors import UserError

__all__ = ["H5adStore"]

# Reading over a gap of this many entries is cheaper than a second read.
GAP = 4096
ENTRIES_AT_A_TIME = 2**24


class H5adStore(Store):
    """Rows of a matrix in an ``.h5ad`` file, stored as CSR or dense.

    The file is opened when rows are first read, once in every process.

    Parameters
    ----------
    path
        The file.
    layer
        Where the counts are, as in :func:`scldm.data.counts.read_counts`.
    genes
        Names of the columns; None takes those of the file.

    Raises
    ------
    UserError
        If there is no such file or layer, or if the matrix is stored by columns.
    """

    path: str

    def __init__(self, path: str | os.PathLike[str], layer: str | None = None, genes: pd.Index | None = None) -> None:
        self.path = os.path.abspath(path)
        self.layer = layer
        self._file: h5py.File | None = None
        self._process = -1
        with open_h5ad(path) as file:
            table, self.key = find_counts_in_file(file, layer), counts_key(file, layer)
            self.where = table.where
            self.genes = table.genes if genes is None else genes
            item = file[self.key]
            self._sparse = isinstance(item, h5py.Group)
            if isinstance(table.matrix, StoredMatrix):
                if table.matrix.format != "csr":
                    raise UserError(
                        f"'{self.key}' of '{path}' is stored by columns (CSC), so single cells cannot be read from it; "
                        "convert it to CSR, or read it into memory by dropping --data.backed"
                    )
                self._indptr = table.matrix.indptr
                self._chunks = item["data"].chunks
            else:
                self._indptr = np.arange(item.shape[0] + 1, dtype=np.int64) * item.shape[1]
                self._chunks = item.chunks
        self.n_cells = len(self._indptr) - 1

    @classmethod
    def can_open(cls, data: CellData, *, backed: bool) -> bool:
        """Accept any path, and an AnnData that is backed by a file, if the counts are to stay there."""
        return backed and isinstance(data, ad.AnnData | str | os.PathLike)

    @classmethod
    def open(cls, data: CellData, layer: str | None) -> tuple[H5adStore, pd.DataFrame]:
        """Find the counts of a file, or of an AnnData that is backed by one."""
        if not isinstance(data, ad.AnnData):
            with open_h5ad(data) as file:
                obs = read_obs(file)
            return cls(data, layer), obs
        if not data.isbacked or data.is_view:
            raise UserError("backed reading needs a whole .h5ad file; pass its path, or write the data to one first")
        # The names may have been changed since the file was opened.
        return cls(data.filename, layer, find_counts(data, layer).genes), data.obs

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_process": -1}

    @property
    def locality(self) -> int:
        """See :meth:`Store.locality`: the rows of a compressed chunk, or as many as are read faster than skipped."""
        if not self._sparse:
            return self._chunks[0] if self._chunks else 1
        entries = max(GAP, self._chunks[0] if self._chunks else 0)
        return max(1, entries * self.n_cells // max(1, self.n_entries))

    @property
    def n_entries(self) -> int:
        """Number of entries that are stored; of a dense matrix, all."""
        return int(self._indptr[-1])

    def read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """See :meth:`Store.read`; what lies close together in the file is read at once, from the front to the back."""
        with reading(self.path):
            found = self._read(rows)
            # A file that changed since it was scanned would be trained on without a word.
            check_counts(found.data, self.where)
            return canonical(found)

    def blocks(self) -> Iterator[sp.csr_matrix]:
        """See :meth:`Store.blocks`."""
        start = 0
        while start < self.n_cells:
            within = np.searchsorted(self._indptr, self._indptr[start] + ENTRIES_AT_A_TIME, side="right") - 1
            stop = min(self.n_cells, max(start + 1, int(within)))
            with reading(self.path):
                block = self._read(np.arange(start, stop))
            yield block
            start = stop

    def elsewhere(self) -> list[str]:
        """See :meth:`Store.elsewhere`."""
        with open_h5ad(self.path) as file:
            return find_counts_in_file(file, self.layer).elsewhere()

    def close(self) -> None:
        """See :meth:`Store.close`."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def _read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Return rows, values and columns as they are stored."""
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
        values = native(_read_runs(group["data"], run_start, run_stop))
        columns = _read_runs(group["indices"], run_start, run_stop)
        if len(columns) and (columns.min() < 0 or columns.max() >= len(self.genes)):
            raise UserError(f"the sparse matrix '{self.key}' is damaged: its indices lie outside of it")
        columns = columns.astype(np.int32, copy=False)
        # Where each row begins in what was read: its run's place there plus its place in the run.
        run_place = np.cumsum(run_stop - run_start) - (run_stop - run_start)
        run_of_row = np.cumsum(is_new_run) - 1
        place = run_place[run_of_row] + start - run_start[run_of_row]
        place = place[np.searchsorted(ordered, rows)]
        length = self._indptr[rows + 1] - self._indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(length)])
        take = np.arange(indptr[-1]) + np.repeat(place - indptr[:-1], length)
        return sp.csr_matrix((values[take], columns[take], indptr), shape=(len(rows), len(self.genes)))

    def _read_dense(self, rows: np.ndarray, ordered: np.ndarray, first: np.ndarray, last: np.ndarray) -> sp.csr_matrix:
        dataset = self._item()
        blocks = [sp.csr_matrix(native(dataset[ordered[a] : ordered[b] + 1])) for a, b in zip(first, last, strict=True)]
        if not blocks:
            return sp.csr_matrix((0, len(self.genes)), dtype=dataset.dtype)
        return sp.csr_matrix(sp.vstack(blocks, format="csr"))[np.searchsorted(ordered, rows)]

    def _item(self) -> h5py.Group | h5py.Dataset:
        if self._file is None or self._process != os.getpid():
            # A handle that came through a fork belongs to the parent: forget it, never close it.
            self._file = h5py.File(self.path, "r")
            self._process = os.getpid()
        return self._file[self.key]


def _read_runs(dataset: h5py.Dataset, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    # Plain slices take a short cut in h5py that is many times faster than read_direct into one array.
    runs = [dataset[a:b] for a, b in zip(start.tolist(), stop.tolist(), strict=True)]
    return np.concatenate(runs) if runs else np.empty(0, dtype=dataset.dtype)

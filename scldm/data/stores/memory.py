"""Counts in memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Int, Int64

from scldm.data.counts import CountTable, find_counts, to_count_matrix
from scldm.data.fingerprint import count_hashes, gene_weights
from scldm.data.genes import take_columns
from scldm.data.h5ad import find_counts_in_file, open_h5ad, read_obs
from scldm.data.stores.base import CellData, Scan, Store

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Counts that are read as a whole, and checked, when they are first needed.

    Parameters
    ----------
    table
        Where the counts are; only its names and its shape are looked at.
    load
        Reads them, as canonical CSR.
    is_shared
        Whether what ``load`` returns may belong to someone who changes it later.
    """

    def __init__(self, table: CountTable, load: Callable[[], sp.csr_matrix], *, is_shared: bool) -> None:
        self.genes = table.genes
        self.n_cells = int(table.matrix.shape[0])
        self.where = table.where
        self._load: Callable[[], sp.csr_matrix] | None = load
        self._is_shared = is_shared
        self._matrix: sp.csr_matrix | None = None

    @classmethod
    def can_open(cls, data: CellData, *, backed: bool) -> bool:
        """Accept an AnnData and any path, unless the counts are to stay in the file."""
        return not backed and isinstance(data, ad.AnnData | str | os.PathLike)

    @classmethod
    def open(cls, data: CellData, layer: str | None) -> tuple[MemoryStore, pd.DataFrame]:
        """Find the counts of an AnnData or of an ``.h5ad`` file."""
        if isinstance(data, ad.AnnData):
            table = find_counts(data, layer)
            # Users normalise their AnnData in place while they hold a model of it.
            return cls(table, partial(to_count_matrix, table), is_shared=True), data.obs
        with open_h5ad(data) as file:
            obs = read_obs(file)
            return cls(find_counts_in_file(file, layer), partial(_load_file, data, layer), is_shared=False), obs

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_matrix": self._counts(), "_load": None}

    @property
    def n_entries(self) -> int:
        """Number of positive counts."""
        return int(self._counts().nnz)

    def read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """See :meth:`Store.read`."""
        return self._counts()[rows]

    def blocks(self) -> Iterator[sp.csr_matrix]:
        """Yield the whole matrix."""
        yield self._counts()

    def scan(self) -> Scan:
        """See :meth:`Store.scan`; the counts are checked when they are read."""
        matrix = self._counts()
        totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
        n_expressing = np.bincount(matrix.indices, minlength=len(self.genes))
        return Scan(totals, n_expressing, count_hashes(matrix, gene_weights(self.genes)))

    def narrowed(self, columns: Int64[np.ndarray, " chosen"]) -> MemoryStore:
        """See :meth:`Store.narrowed`."""
        counts = self._counts()
        taken = take_columns(counts, columns)
        narrowed = copy.copy(self)
        narrowed.genes = self.genes[columns]
        narrowed._matrix = taken.copy() if taken is counts and self._is_shared else taken
        narrowed._load, narrowed._is_shared = None, False
        return narrowed

    def _counts(self) -> sp.csr_matrix:
        if self._matrix is None:
            assert self._load is not None
            self._matrix = self._load()
        return self._matrix


def _load_file(path: str | os.PathLike[str], layer: str | None) -> sp.csr_matrix:
    with open_h5ad(path) as file:
        return to_count_matrix(find_counts_in_file(file, layer))

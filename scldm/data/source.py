"""Where cells come from: the counts of a store in the terms of a schema, with the attributes of the cells."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float32, Float64, Int, UInt64
from torch.utils.data import Dataset

from scldm.data.batch import CellBatch
from scldm.data.counts import canonical
from scldm.data.fingerprint import column_fingerprint, counts_fingerprint
from scldm.data.genes import GeneCoverage, GeneMap, take_columns
from scldm.data.schema import DatasetSchema
from scldm.data.stores.base import Store
from scldm.data.stores.unpacked import UnpackedStore
from scldm.data.table import CellTable
from scldm.errors import UserError

__all__ = ["CellDataset", "CellSource"]

ROWS_AT_A_TIME = 8192


@dataclass(frozen=True, eq=False)
class CellSource:
    """Cells with counts over the genes of a schema and codes for its attributes, as ``open_source`` makes them.

    Attributes
    ----------
    store
        Where the counts are.
    genes
        Where the genes of the store are in the schema.
    schema
        Genes, attributes and depth that the batches refer to.
    table
        Attributes of all rows of the store.
    depths
        Library sizes of all rows of the store: UMI counts over the genes of the schema that were measured.
    coverage
        How well the store covers the genes of the schema.
    rows
        Which rows of the store are the cells of this source.
    hashes
        Of the counts of all rows of the store, see :func:`scldm.data.fingerprint.count_hashes`.
    """

    store: Store
    genes: GeneMap
    schema: DatasetSchema
    table: CellTable
    depths: Float32[np.ndarray, " rows"]
    coverage: GeneCoverage
    rows: Int[np.ndarray, " cells"]
    hashes: UInt64[np.ndarray, " rows"]

    def fingerprints(self) -> dict[str, str]:
        """Return fingerprints of the counts and of every column, in the order of the cells.

        The counts are those of all genes of the file, whichever of them the schema has; they were summed up when the
        file was opened, for it is read once as a whole then. The names of the cells do not matter.
        """
        columns = {f"column '{name}'": column_fingerprint(self.obs[name]) for name in self.obs.columns}
        return {"matrix of counts": counts_fingerprint(self.hashes[self.rows]), **columns}

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.rows)

    @property
    def obs(self) -> pd.DataFrame:
        """Attribute columns (and those asked for with ``keep_columns``) of the cells, indexed by cell name."""
        return self.table.obs.iloc[self.rows]

    def batch(self, cells: Int[np.ndarray, " cells"]) -> CellBatch:
        """Return cells by position, in the order asked for; the batch knows which genes were measured."""
        rows = self.rows[cells]
        measured = self.genes.measured
        return CellBatch.from_csr(
            self._read(rows),
            self.table.categorical[rows],
            self.table.continuous[rows],
            measured=None if measured is None else measured[None],
            stores=None if measured is None else np.zeros(len(rows), dtype=np.int64),
        )

    def gene_totals(self) -> Float64[np.ndarray, " genes"]:
        """Return the UMI counts of every gene of the schema summed over the cells, 0 where it was not measured."""
        totals = np.zeros(self.schema.n_genes)
        for start in range(0, self.n_cells, ROWS_AT_A_TIME):
            block = self._read(self.rows[start : start + ROWS_AT_A_TIME])
            totals += np.bincount(block.indices, weights=block.data, minlength=self.schema.n_genes)
        return totals

    def library_sizes(self) -> Float32[np.ndarray, " cells"]:
        """Return the UMI counts of every cell summed over the genes of the schema that were measured."""
        return self.depths[self.rows]

    def subset(self, cells: Int[np.ndarray, " chosen"]) -> CellSource:
        """Return some of the cells as a source of their own, without copying counts."""
        return dataclasses.replace(self, rows=self.rows[cells])

    def unpack(self, directory: str | os.PathLike[str]) -> None:
        """Write the counts of all rows of the store to plain arrays, to be read by :meth:`unpacked`.

        Nothing is done if the store reads any rows at the same cost as it is.

        Parameters
        ----------
        directory
            Appears when all counts are there.

        Raises
        ------
        UserError
            If the disk has no room for them.
        """
        if self.store.locality is None:
            return
        columns = self.genes.columns
        needed = self.store.n_entries * UnpackedStore.bytes_per_entry(len(columns))
        parent = next(place for place in Path(directory).absolute().parents if place.exists())
        if needed > (free := shutil.disk_usage(parent).free):
            raise UserError(
                f"the counts unpacked would take {needed / 1e9:,.1f} GB, and '{os.fspath(directory)}' has "
                f"{free / 1e9:,.1f} GB left; make room, choose another output, or read the file itself with "
                "--data.no-unpack (data.unpack: false)"
            )
        blocks = self.store.blocks_with_progress("unpacking counts")
        UnpackedStore.write(directory, self._checked(blocks, columns), self.store.genes[columns])

    def _checked(
        self, blocks: Iterator[sp.csr_matrix], columns: Int[np.ndarray, " columns"]
    ) -> Iterator[sp.csr_matrix]:
        start = 0
        for block in blocks:
            narrow = take_columns(canonical(block), columns)
            self._check_unchanged(narrow, np.arange(start, start + narrow.shape[0]))
            start += narrow.shape[0]
            yield narrow

    def unpacked(self, directory: str | os.PathLike[str]) -> CellSource:
        """Return the same cells, read from where :meth:`unpack` wrote them; this source if it had nothing to do."""
        if self.store.locality is None:
            return self
        store = UnpackedStore(directory, self.store.genes[self.genes.columns])
        return dataclasses.replace(self, store=store, genes=store.gene_map(self.schema.genes))

    def _read(self, rows: Int[np.ndarray, " chosen"]) -> sp.csr_matrix:
        found = self.genes.align(self.store.read(rows))
        self._check_unchanged(found, rows)
        return found

    def _check_unchanged(self, counts: sp.csr_matrix, rows: Int[np.ndarray, " cells"]) -> None:
        """Raise ``UserError`` if cells have other library sizes than when the store was opened.

        HDF5 reads zeros where a file has been cut off, which would be trained on without a word.
        """
        totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel().astype(np.float32)
        changed = np.flatnonzero(totals != self.depths[rows])
        if len(changed):
            cell = rows[changed[0]]
            place = self.store.where if self.store.path is None else f"{self.store.where} of '{self.store.path}'"
            raise UserError(
                f"{place} changed after it was opened: cell '{self.table.obs.index[cell]}' had "
                f"{self.depths[cell]:g} UMI, and now has {totals[changed[0]]:g}; repeat the command when nothing "
                "writes to it any more"
            )


class CellDataset(Dataset[CellBatch]):
    """A cell source as a data set whose items are whole batches, for a ``DataLoader`` with ``batch_size=None``.

    Parameters
    ----------
    source
        Where the cells come from.
    """

    def __init__(self, source: CellSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return self.source.n_cells

    def __getitem__(self, indices: Int[np.ndarray, " cells"]) -> CellBatch:
        """Return the cells at ``indices`` in that order."""
        return self.source.batch(indices)

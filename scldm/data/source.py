"""Where cells come from: one interface over data in memory and files too large for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float32, Float64, Int, Int64

from scldm.data.alignment import GeneCoverage
from scldm.data.batch import CellBatch
from scldm.data.schema import DatasetSchema

__all__ = ["AnnDataSource", "CellSource", "CellTable", "IndexedSource"]

ROWS_AT_A_TIME = 8192


@runtime_checkable
class CellSource(Protocol):
    """Cells with counts over the genes of a schema and codes for its attributes."""

    @property
    def schema(self) -> DatasetSchema:
        """Genes, attributes and depth that the batches refer to."""

    @property
    def n_cells(self) -> int:
        """Number of cells."""

    @property
    def obs(self) -> pd.DataFrame:
        """Attribute columns (and those asked for with ``keep_columns``) of the cells, indexed by cell name."""

    @property
    def cell_names(self) -> np.ndarray:
        """Names of the cells, not necessarily unique."""

    @property
    def coverage(self) -> GeneCoverage:
        """How well the file covers the genes of the schema."""

    def batch(self, cells: Int[np.ndarray, " cells"]) -> CellBatch:
        """Return cells by position, in the order asked for."""

    def gene_totals(self) -> Float64[np.ndarray, " genes"]:
        """Return the UMI counts of every gene summed over the cells."""

    def library_sizes(self) -> Float32[np.ndarray, " cells"]:
        """Return the UMI counts of every cell summed over the genes of the schema."""

    def subset(self, cells: Int[np.ndarray, " cells"]) -> CellSource:
        """Return some of the cells as a source of their own, without copying counts."""


@dataclass(frozen=True, eq=False)
class CellTable:
    """Everything about the cells of a file but their counts.

    Attributes
    ----------
    obs
        Attributes as labels and numbers, indexed by cell name.
    categorical, continuous
        The same as codes and standardised values.
    library_sizes
        UMI counts per cell over the genes of the schema.
    """

    obs: pd.DataFrame
    categorical: Int64[np.ndarray, "cells n_categorical"]
    continuous: Float32[np.ndarray, "cells n_continuous"]
    library_sizes: Float32[np.ndarray, " cells"]


class IndexedSource:
    """What the sources share: a table of cells and a list of the rows of the file that belong to the source.

    A subclass says how to read rows.
    """

    def __init__(
        self,
        schema: DatasetSchema,
        table: CellTable,
        coverage: GeneCoverage,
        rows: Int[np.ndarray, " cells"] | None = None,
    ) -> None:
        self._schema = schema
        self._table = table
        self._coverage = coverage
        self._rows = np.arange(len(table.library_sizes)) if rows is None else rows

    def read_rows(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Return rows of the file as canonical CSR over the genes of the schema."""
        raise NotImplementedError

    def _with_rows(self, rows: Int[np.ndarray, " cells"]) -> IndexedSource:
        raise NotImplementedError

    @property
    def schema(self) -> DatasetSchema:
        """Genes, attributes and depth that the batches refer to."""
        return self._schema

    @property
    def coverage(self) -> GeneCoverage:
        """How well the file covers the genes of the schema."""
        return self._coverage

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self._rows)

    @property
    def obs(self) -> pd.DataFrame:
        """Attribute columns (and those asked for with ``keep_columns``) of the cells, indexed by cell name."""
        return self._table.obs.iloc[self._rows]

    @property
    def cell_names(self) -> np.ndarray:
        """Names of the cells, not necessarily unique."""
        return self._table.obs.index.to_numpy(dtype=object)[self._rows]

    def batch(self, cells: Int[np.ndarray, " cells"]) -> CellBatch:
        """Return cells by position, in the order asked for."""
        rows = self._rows[cells]
        return CellBatch.from_csr(self.read_rows(rows), self._table.categorical[rows], self._table.continuous[rows])

    def gene_totals(self) -> Float64[np.ndarray, " genes"]:
        """Return the UMI counts of every gene summed over the cells."""
        totals = np.zeros(self._schema.n_genes)
        for start in range(0, self.n_cells, ROWS_AT_A_TIME):
            block = self.read_rows(self._rows[start : start + ROWS_AT_A_TIME])
            totals += np.bincount(block.indices, weights=block.data, minlength=self._schema.n_genes)
        return totals

    def library_sizes(self) -> Float32[np.ndarray, " cells"]:
        """Return the UMI counts of every cell summed over the genes of the schema."""
        return self._table.library_sizes[self._rows]

    def subset(self, cells: Int[np.ndarray, " cells"]) -> CellSource:
        """Return some of the cells as a source of their own, without copying counts."""
        return self._with_rows(self._rows[cells])


class AnnDataSource(IndexedSource):
    """Cells in memory.

    Parameters
    ----------
    matrix
        UMI counts, all rows x genes of the schema, canonical CSR.
    schema, table, coverage, rows
        As in :class:`IndexedSource`.
    """

    def __init__(
        self,
        matrix: sp.csr_matrix,
        schema: DatasetSchema,
        table: CellTable,
        coverage: GeneCoverage,
        rows: Int[np.ndarray, " cells"] | None = None,
    ) -> None:
        super().__init__(schema, table, coverage, rows)
        self._matrix = matrix

    def read_rows(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Return rows of the matrix."""
        return self._matrix[rows]

    def _with_rows(self, rows: Int[np.ndarray, " cells"]) -> AnnDataSource:
        return AnnDataSource(self._matrix, self._schema, self._table, self._coverage, rows)

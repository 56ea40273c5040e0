"""What every store of counts offers: cells over the genes that it measured, read by row."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float64, Int, Int64, UInt64
from tqdm import tqdm

from scldm.data.counts import canonical, check_counts
from scldm.data.fingerprint import count_hashes, gene_weights
from scldm.data.genes import GeneMap

__all__ = ["CellData", "Scan", "Store"]

CellData: TypeAlias = ad.AnnData | str | os.PathLike[str]
"""Cells as a user passes them: in memory, or where they are."""

ROWS_AT_A_TIME = 8192


@dataclass(frozen=True, eq=False)
class Scan:
    """What one pass over a store finds.

    Attributes
    ----------
    totals
        UMI counts of every cell over all genes of the store.
    n_expressing
        Cells that express each gene of the store.
    hashes
        A number per cell that depends on all its counts, see :func:`count_hashes`.
    """

    totals: Float64[np.ndarray, " cells"]
    n_expressing: Int64[np.ndarray, " store_genes"]
    hashes: UInt64[np.ndarray, " cells"]


class Store(ABC):
    """UMI counts of cells over the genes that were measured in them.

    A new kind of store is a subclass in a file of its own, with a line in :data:`scldm.data.stores.registry.STORES`. It
    has to set :attr:`genes` and :attr:`n_cells`, to read rows, and to say what it opens; the rest follows, and is there
    to be overridden by what can be done faster.

    A store is sent to the workers of a ``DataLoader`` by fork or by pickle: an open file must neither be pickled nor be
    used in a process that did not open it.

    Attributes
    ----------
    genes
        Unique names of the columns. All of them were measured: a zero is a zero. Of any other gene nothing is known.
    n_cells
        Number of rows.
    where
        What a sentence calls the counts, such as ``layer 'counts'``.
    path
        The file that they are read from while they are used; None if they are in memory.
    """

    genes: pd.Index
    n_cells: int
    where: str = "the store"
    path: str | None = None

    @classmethod
    def can_open(cls, data: CellData, *, backed: bool) -> bool:
        """Tell from a look, without reading, whether this kind of store is meant.

        Parameters
        ----------
        data
            What the user passed.
        backed
            Whether counts are to stay where they are until they are needed.
        """
        return False

    @classmethod
    def open(cls, data: CellData, layer: str | None) -> tuple[Store, pd.DataFrame]:
        """Find the counts of what :meth:`can_open` accepted, without reading them, and read the table of cells.

        Parameters
        ----------
        data
            What the user passed.
        layer
            Where the counts are, as in :func:`scldm.data.counts.read_counts`.

        Returns
        -------
        store
            The counts.
        obs
            One row per cell, as the file has it.

        Raises
        ------
        UserError
            If it cannot be read, or if there is no such layer.
        """
        raise NotImplementedError(f"{cls.__name__} is not opened, but written from another store")

    @abstractmethod
    def read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        """Return rows in the order asked for.

        Parameters
        ----------
        rows
            Positions, which may repeat.

        Returns
        -------
        Canonical CSR (columns sorted and unique, no stored zeros) over :attr:`genes`, values of the type they are
        stored in.
        """

    @property
    def locality(self) -> int | None:
        """How many consecutive rows come at about the price of one; None if any rows cost the same to read.

        A file that is compressed in chunks undoes a whole chunk for every row in it. An order of cells that keeps
        blocks of this many rows together reads each chunk about once; an order that does not has the counts unpacked
        first (:meth:`scldm.data.source.CellSource.unpack`).
        """
        return None

    @property
    def n_entries(self) -> int:
        """Entries that are stored: at least as many as there are positive counts."""
        return self.n_cells * len(self.genes)

    def gene_map(self, schema_genes: Sequence[str], min_shared: float = 0.0) -> GeneMap:
        """Tell where the genes of this store are in a schema; as :meth:`scldm.data.genes.GeneMap.between`."""
        return GeneMap.between(self.genes, schema_genes, min_shared)

    def blocks(self) -> Iterator[sp.csr_matrix]:
        """Yield all rows in order in blocks of bounded size, values as they are stored, not necessarily canonical."""
        for start in range(0, self.n_cells, ROWS_AT_A_TIME):
            yield self.read(np.arange(start, min(start + ROWS_AT_A_TIME, self.n_cells)))

    def scan(self) -> Scan:
        """Read all counts once, without holding them, and check that they are counts.

        Raises
        ------
        UserError
            If a value is not an integer from 0 to 2^24.
        """
        totals, n_expressing = [np.zeros(0)], np.zeros(len(self.genes), dtype=np.int64)
        hashes, weights = [np.zeros(0, dtype=np.uint64)], gene_weights(self.genes)
        for block in self.blocks_with_progress("checking counts"):
            check_counts(block.data, self.where, self.elsewhere)
            totals.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
            n_expressing += np.bincount(canonical(block).indices, minlength=len(self.genes))
            hashes.append(count_hashes(block, weights))
        return Scan(np.concatenate(totals), n_expressing, np.concatenate(hashes))

    def library_sizes(self, columns: Int64[np.ndarray, " chosen"]) -> Float64[np.ndarray, " cells"]:
        """Return the UMI counts of every cell over some genes, given as columns."""
        kept = np.zeros(len(self.genes))
        kept[columns] = 1
        blocks = self.blocks_with_progress("measuring depth")
        return np.concatenate([np.zeros(0), *(block @ kept for block in blocks)])

    def narrowed(self, columns: Int64[np.ndarray, " chosen"]) -> Store:
        """Return a store of some genes, given as columns, in that order; or this one, if that would save nothing.

        What is returned does not change when the data that were opened do.
        """
        return self

    def elsewhere(self) -> list[str]:
        """Tell in which other places there are integers; asked when what is here turns out not to be counts."""
        return []

    def close(self) -> None:  # noqa: B027 - most stores have nothing open
        """Let go of open files; what is read later opens them again."""

    def blocks_with_progress(self, what: str) -> Iterator[sp.csr_matrix]:
        """Yield the blocks of :meth:`blocks` and show a progress bar; ``what`` says what for."""
        with tqdm(total=self.n_cells, desc=what, unit="cell", unit_scale=True, disable=None, leave=False) as progress:
            for block in self.blocks():
                yield block
                progress.update(block.shape[0])

"""The one batch type: cells as a jagged list of their expressed genes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

__all__ = ["CellBatch", "attributes_to_hide", "hide_attributes"]


def attributes_to_hide(
    noise: Float32[Tensor, "cells attributes_and_1"], each: float, jointly: float
) -> Bool[Tensor, "cells attributes"]:
    """Choose the attributes that a network is not told in training.

    Guidance extrapolates from cells without any attribute, and cells are encoded as such. If every attribute were
    hidden by itself alone, a share of ``each ** attributes`` of the cells would have to teach that: too few of two.

    Parameters
    ----------
    noise
        Uniform on [0, 1), one number per attribute and one per cell behind them.
    each
        Probability, for each attribute by itself, of being hidden.
    jointly
        Probability that all attributes of a cell are hidden together.
    """
    return (noise[:, :-1] < each) | (noise[:, -1:] < jointly)


def hide_attributes(
    categorical: Int64[Tensor, "cells n_categorical"],
    continuous: Float32[Tensor, "cells n_continuous"],
    hidden: Bool[Tensor, "cells attributes"] | None = None,
) -> tuple[Int64[Tensor, "cells n_categorical"], Float32[Tensor, "cells n_continuous"]]:
    """Make attributes unknown: -1 for a category, NaN for a number.

    Parameters
    ----------
    categorical, continuous
        Of some cells.
    hidden
        Which ones, categorical attributes first; None hides all.
    """
    if hidden is None:
        return torch.full_like(categorical, -1), torch.full_like(continuous, torch.nan)
    hidden_categorical, hidden_continuous = hidden.tensor_split([categorical.shape[1]], dim=1)
    return torch.where(hidden_categorical, -1, categorical), torch.where(hidden_continuous, torch.nan, continuous)


@dataclass(frozen=True, eq=False)
class CellBatch:
    """Cells in compressed sparse rows: only genes with counts above zero are stored, no padding.

    Attributes
    ----------
    gene_ids
        Index of the gene in the schema for every stored entry, increasing inside a cell; ``[entries]``.
    counts
        UMI counts of the entries, all above zero; ``[entries]``.
    offsets
        Cell ``i`` owns the entries ``offsets[i]:offsets[i + 1]``; ``[cells + 1]``.
    library_size
        Total UMI counts of each cell over the genes of the schema; ``[cells]``.
    categorical
        Category code of every categorical attribute, -1 where the cell is unlabelled; ``[cells, n_categorical]``.
    continuous
        Standardised continuous attributes, NaN where the cell is unlabelled; ``[cells, n_continuous]``.
    measured
        Which genes of the schema each store measured; ``[stores, genes]``. A zero of a measured gene is a zero; of any
        other nothing is known. None: every store measured all genes.
    stores
        Which row of ``measured`` each cell belongs to; ``[cells]``. None exactly when ``measured`` is None.
    """

    gene_ids: Int64[Tensor, " entries"]
    counts: Float32[Tensor, " entries"]
    offsets: Int64[Tensor, " cells_plus_one"]
    library_size: Float32[Tensor, " cells"]
    categorical: Int64[Tensor, "cells n_categorical"]
    continuous: Float32[Tensor, "cells n_continuous"]
    measured: Bool[Tensor, "stores genes"] | None = None
    stores: Int64[Tensor, " cells"] | None = None

    def __post_init__(self) -> None:
        if (self.measured is None) != (self.stores is None):
            raise ValueError("a batch needs both measured and stores, or neither")

    @classmethod
    def from_csr(
        cls,
        matrix: sp.csr_matrix | sp.csr_array,
        categorical: Int64[np.ndarray, "cells n_categorical"] | None = None,
        continuous: Float32[np.ndarray, "cells n_continuous"] | None = None,
        measured: Bool[np.ndarray, "stores genes"] | None = None,
        stores: Int64[np.ndarray, " cells"] | None = None,
    ) -> CellBatch:
        """Build a batch from a sparse count matrix.

        Parameters
        ----------
        matrix
            UMI counts, cells x genes of the schema. Stored zeros are dropped, unsorted columns sorted and repeated
            ones added up; the matrix itself is left as it is.
        categorical
            Category codes, cells x categorical attributes; none when omitted.
        continuous
            Standardised values, cells x continuous attributes; none when omitted.
        measured, stores
            As the attributes of the batch.
        """
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        counts = np.ascontiguousarray(matrix.data, dtype=np.float32)
        gene_ids = matrix.indices.astype(np.int64)
        offsets = matrix.indptr.astype(np.int64)
        expressed = counts != 0
        if not expressed.all():
            kept_before = np.concatenate([[0], np.cumsum(expressed)])
            counts, gene_ids, offsets = counts[expressed], gene_ids[expressed], kept_before[offsets]
        elif counts is matrix.data:
            # A batch must not alias the matrix it was made from, which a caller may still change.
            counts = counts.copy()
        n_cells = len(offsets) - 1
        if categorical is None:
            categorical = np.empty((n_cells, 0), dtype=np.int64)
        if continuous is None:
            continuous = np.empty((n_cells, 0), dtype=np.float32)
        if len(categorical) != n_cells or len(continuous) != n_cells:
            raise ValueError(
                f"the matrix has {n_cells} cells, categorical has {len(categorical)} and continuous {len(continuous)}"
            )
        # reduceat sums up to the next start, so empty cells are left out of the starts; float64 is exact for integers.
        library_size = np.zeros(n_cells, dtype=np.float32)
        filled = np.diff(offsets) > 0
        if filled.any():
            library_size[filled] = np.add.reduceat(counts, offsets[:-1][filled], dtype=np.float64)
        return cls(
            gene_ids=torch.from_numpy(gene_ids),
            counts=torch.from_numpy(counts),
            offsets=torch.from_numpy(offsets),
            library_size=torch.from_numpy(library_size),
            categorical=torch.from_numpy(np.ascontiguousarray(categorical)),
            continuous=torch.from_numpy(np.ascontiguousarray(continuous)),
            measured=None if measured is None else torch.from_numpy(measured),
            stores=None if stores is None else torch.from_numpy(stores),
        )

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.library_size.shape[0]

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.counts.device

    def __len__(self) -> int:
        return self.n_cells

    def hide_attributes(self, hidden: Bool[Tensor, "cells attributes"] | None = None) -> CellBatch:
        """Make the same cells with attributes unknown.

        Parameters
        ----------
        hidden
            Which ones, categorical attributes first; None hides all.
        """
        categorical, continuous = hide_attributes(self.categorical, self.continuous, hidden)
        return dataclasses.replace(self, categorical=categorical, continuous=continuous)

    def measured_by_cell(self) -> Bool[Tensor, "cells genes"] | None:
        """Return which genes were measured in every cell; None: all of them."""
        if self.measured is None or self.stores is None:
            return None
        return self.measured.index_select(0, self.stores)

    def cell_ids(self) -> Int64[Tensor, " entries"]:
        """Return the row in the batch that every entry belongs to."""
        rows = torch.arange(self.n_cells, device=self.device)
        # output_size spares a device synchronisation.
        return torch.repeat_interleave(rows, self.offsets.diff(), output_size=self.gene_ids.shape[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CellBatch:
        """Return the batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> CellBatch:
        """Return the batch in page-locked memory; called by ``torch.utils.data.DataLoader``."""
        return self._map(Tensor.pin_memory)

    def slice(self, start: int, stop: int) -> CellBatch:
        """Return the cells ``start:stop``; like a Python slice, ``stop`` may lie past the end."""
        if not 0 <= start <= stop:
            raise ValueError(f"need 0 <= start <= stop, got start={start} and stop={stop}")
        offsets = self.offsets[start : stop + 1] if start <= self.n_cells else self.offsets[-1:]
        first, last = int(offsets[0]), int(offsets[-1])
        return CellBatch(
            gene_ids=self.gene_ids[first:last],
            counts=self.counts[first:last],
            offsets=offsets - first,
            library_size=self.library_size[start:stop],
            categorical=self.categorical[start:stop],
            continuous=self.continuous[start:stop],
            measured=self.measured,
            stores=None if self.stores is None else self.stores[start:stop],
        )

    def padded(
        self,
    ) -> tuple[Int64[Tensor, "cells longest"], Float32[Tensor, "cells longest"], Bool[Tensor, "cells longest"]]:
        """Return the cells as rectangles as wide as the longest cell.

        Returns
        -------
        gene_ids
            0 where there is no entry.
        counts
            0 where there is no entry.
        mask
            True where there is an entry.
        """
        lengths = self.offsets.diff()
        longest = int(lengths.max()) if self.n_cells else 0
        cell_ids = self.cell_ids()
        position = torch.arange(len(self.gene_ids), device=self.device) - self.offsets[cell_ids]
        gene_ids = self.gene_ids.new_zeros(self.n_cells, longest)
        gene_ids[cell_ids, position] = self.gene_ids
        counts = self.counts.new_zeros(self.n_cells, longest)
        counts[cell_ids, position] = self.counts
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        return gene_ids, counts, mask

    def dense(self, n_genes: int) -> Float32[Tensor, "cells genes"]:
        """Return the counts of all genes, zeros included.

        Parameters
        ----------
        n_genes
            Number of genes of the schema.
        """
        counts = self.counts.new_zeros(self.n_cells, n_genes)
        counts[self.cell_ids(), self.gene_ids] = self.counts
        return counts

    def _map(self, function: Callable[[Tensor], Tensor]) -> CellBatch:
        moved: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            tensor = getattr(self, field.name)
            moved[field.name] = None if tensor is None else function(tensor)
        return CellBatch(**moved)

"""Counts as they are drawn: only the positive ones are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

__all__ = ["SparseCounts"]


@dataclass(frozen=True, eq=False)
class SparseCounts:
    """The positive counts of some cells.

    Attributes
    ----------
    entries
        Where they are in the row-major cells x genes matrix, increasing; ``[entries]``.
    counts
        UMI counts, above zero; ``[entries]``.
    shape
        Cells and genes.
    """

    entries: Int64[Tensor, " entries"]
    counts: Float32[Tensor, " entries"]
    shape: tuple[int, int]

    def where(self, kept: Bool[Tensor, " entries"]) -> SparseCounts:
        """Keep some of the counts; the others become zero."""
        chosen = kept.nonzero().squeeze(1)
        return SparseCounts(self.entries[chosen], self.counts[chosen], self.shape)

    def to_csr(self, n_cells: int | None = None) -> sp.csr_matrix:
        """Give the counts of the first ``n_cells`` cells, or of all, as a canonical matrix of float32."""
        n_cells, n_genes = self.shape[0] if n_cells is None else n_cells, self.shape[1]
        entries = self.entries.cpu().numpy()
        starts = np.searchsorted(entries, np.arange(n_cells + 1) * n_genes)
        entries = entries[: starts[-1]]
        genes = (entries - np.repeat(np.arange(n_cells) * n_genes, np.diff(starts))).astype(np.int32)
        counts = self.counts[: len(entries)].cpu().numpy()
        return sp.csr_matrix((counts, genes, starts.astype(np.int32)), shape=(n_cells, n_genes))

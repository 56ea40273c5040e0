"""Attention pooling of the wide layout: the expressed genes of a cell, as two weighted embedding bags.

The inducing queries are parameters, so the score of a gene for a query does not depend on the cell; only the count
weight does. Attention over the expressed genes of a cell is then a ratio of two weighted embedding bags over the same
CSR entries: ``exp(score) * value`` summed with the count weights, over ``exp(score)`` summed with them. There is no
padding, and no array over (cell, gene, channel).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from scldm.data.batch import CellBatch

__all__ = ["AttentionPooling", "weighted_bags"]

#: Scores are kept within this range so that their exponentials and the bags of them stay well inside float32.
SCORE_LIMIT = 8.0


class AttentionPooling(nn.Module):
    """Multi-head cross-attention of learned inducing points to the expressed genes of a cell, as embedding bags.

    Every inducing point has heads of its own. A gene's weight in a head is ``exp(query . key) * log1p(CP10K)``,
    normalised over the genes of the cell. Values never occur without their scores, so what is stored for a gene are
    the products ``exp(score) * value``: every choice of keys, queries and values corresponds to such a table, and no
    pass over all genes and channels is needed to form it.

    Parameters
    ----------
    n_genes, n_inducing_points, n_heads
        Genes, inducing points, heads of each.
    head_width
        Channels of a head.
    key_width
        Channels of gene keys and of queries.
    """

    def __init__(
        self, n_genes: int, n_inducing_points: int, n_heads: int, head_width: int, key_width: int = 16
    ) -> None:
        super().__init__()
        self.n_scores, self.head_width = n_inducing_points * n_heads, head_width
        self.keys = nn.Parameter(torch.randn(n_genes, key_width))
        # Small queries: attention starts nearly uniform and specialises as far as the data ask for it.
        self.queries = nn.Parameter(torch.randn(self.n_scores, key_width) * 0.1 / math.sqrt(key_width))
        # A mean over some 600 genes of independent values has a 1/25 of their scale; this starts it near one.
        self.scored_values = nn.Parameter(torch.randn(n_genes, self.n_scores * head_width) * 2.0)

    @property
    def n_magnitudes(self) -> int:
        """Number of the magnitudes that :meth:`forward` returns per cell."""
        return self.n_scores + 1

    def forward(self, batch: CellBatch) -> tuple[Float[Tensor, "cells channels"], Float[Tensor, "cells magnitudes"]]:
        """Pool the expressed genes of every cell.

        Returns
        -------
        pooled
            Attention-weighted mean of the values, all inducing points and heads side by side.
        magnitudes
            What a weighted mean forgets: the log of each head's total weight, and of the library size.
        """
        # Table lookups and sums of hundreds of terms stay in float32 under autocast.
        with torch.autocast(batch.device.type, enabled=False):
            cells = batch.cell_ids()
            weights = torch.log1p(batch.counts * (1e4 / batch.library_size)[cells])
            scores = (self.keys @ self.queries.T).clamp(-SCORE_LIMIT, SCORE_LIMIT).exp()
            numerator, denominator = weighted_bags(
                batch.gene_ids, cells, batch.offsets, weights, self.scored_values, scores
            )
            pooled = rearrange(numerator, "b (s c) -> b s c", s=self.n_scores) / denominator[..., None]
            magnitudes = torch.cat([denominator, batch.library_size[:, None]], dim=1).log() - 6.0
        return pooled.flatten(1), magnitudes


def weighted_bags(
    genes: Int64[Tensor, " entries"],
    cells: Int64[Tensor, " entries"],
    offsets: Int64[Tensor, " cells_plus_one"],
    weights: Float[Tensor, " entries"],
    *tables: Float[Tensor, "genes _"],
) -> tuple[Float[Tensor, "cells _"], ...]:
    """Sum the rows of the genes of every cell, times their weights, in each of some tables.

    The gradient is written by hand; there is no second derivative.

    Parameters
    ----------
    genes, cells, offsets, weights
        The entries in compressed sparse rows, with the cell of each; weights get no gradient.
    tables
        A row for every gene.
    """
    return _WeightedBags.apply(genes, cells, offsets, weights, *tables)


class _WeightedBags(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, genes: Tensor, cells: Tensor, offsets: Tensor, weights: Tensor, *tables: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(genes, cells, weights)
        ctx.n_genes = len(tables[0])
        return tuple(embedding_bag(genes, t, offsets[:-1], mode="sum", per_sample_weights=weights) for t in tables)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        genes, cells, weights = ctx.saved_tensors
        # The gradient of a gene is a bag, too, over the cells that express it: sums in a fixed order.
        ordered, order = torch.sort(genes, stable=True)
        # Not bincount, for which a GPU would have to be waited for.
        starts = torch.searchsorted(ordered, torch.arange(ctx.n_genes, device=genes.device))
        cells, weights = cells[order], weights[order]
        of_tables = (embedding_bag(cells, g, starts, mode="sum", per_sample_weights=weights) for g in gradients)
        return None, None, None, None, *of_tables

"""The wide layout of the VAE: capacity in per-gene tables, one multiply-add per (cell, gene, channel).

Both directions are multi-head cross-attention, evaluated through two identities.

*Pooling.* The inducing queries are parameters, so the score of a gene for a query does not depend on the cell; only the
count weight does. Attention over the expressed genes of a cell is then a ratio of two weighted embedding bags over
the same CSR entries: ``exp(score) * value`` summed with the count weights, over ``exp(score)`` summed with them. No
padding, no array over (cell, gene, channel).

*Un-pooling.* Gene queries, latent-slot keys and read-outs are parameters, so the attention weights of a gene over the
latent slots fold into its read-out, and all logits are one matrix product of cell features with gene weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from scldm.data.batch import CellBatch
from scldm.nn.attention import SelfAttentionBlock
from scldm.nn.embeddings import AttributeEmbedding
from scldm.vae.kernels import fold_read_outs, weighted_bags

__all__ = ["AttentionPooling", "AttentionUnpooling", "WideDecoder", "WideEncoder"]

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


class WideEncoder(nn.Module):
    """Pools the expressed genes of a cell into latent tokens: attention pooling, a mixing layer, self-attention blocks.

    Parameters
    ----------
    n_genes
        Genes of the schema.
    n_latents
        Inducing points, the latent tokens of a cell.
    width, n_layers, n_heads
        Of the self-attention blocks.
    n_cross_heads
        Heads of every inducing point.
    table_width
        Channels of the table of scored values, shared out among inducing points and heads.
    dropout
        Share of the pooled channels that is dropped in training.
    n_categories, n_continuous
        Attributes of the cells that help to infer the latents: the posterior is q(Z | cell, attributes). A cell of
        which an attribute is not known is encoded without it.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        n_latents: int,
        width: int,
        n_layers: int,
        n_heads: int,
        n_cross_heads: int,
        table_width: int,
        dropout: float = 0.0,
        n_categories: Sequence[int] = (),
        n_continuous: int = 0,
    ) -> None:
        super().__init__()
        self.n_latents, self.dropout = n_latents, dropout
        self.pooling = AttentionPooling(n_genes, n_latents, n_cross_heads, table_width // (n_latents * n_cross_heads))
        self.pooled_norm = nn.LayerNorm(table_width)
        self.mix_input = nn.Linear(table_width + self.pooling.n_magnitudes, table_width)
        self.mix_output = nn.Linear(table_width, n_latents * width)
        self.attributes: AttributeEmbedding | None = None
        if n_categories or n_continuous:
            self.attributes = AttributeEmbedding(n_categories, n_continuous, table_width)
        self.positions = nn.Parameter(torch.randn(n_latents, width) * 0.02)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, n_heads) for _ in range(n_layers))
        self.output_norm = nn.LayerNorm(width)

    def forward(
        self, batch: CellBatch, pooled_dropout: Float[Tensor, "cells table_width"] | None = None
    ) -> Float[Tensor, "cells latents width"]:
        """Hidden latent tokens of every cell, before any bottleneck.

        Parameters
        ----------
        batch
            Cells; their attributes are taken into account where they are known.
        pooled_dropout
            Uniform numbers below which a pooled channel is dropped; None drops nothing.
        """
        pooled, magnitudes = self.pooling(batch)
        pooled = self.pooled_norm(pooled)
        if pooled_dropout is not None and self.dropout:
            pooled = pooled * (pooled_dropout >= self.dropout) / (1 - self.dropout)
        mixed = self.mix_input(torch.cat([pooled, magnitudes], dim=1))
        if self.attributes is not None:
            mixed = mixed + self.attributes(batch.categorical, batch.continuous)
        tokens = self.mix_output(nn.functional.silu(mixed))
        tokens = rearrange(tokens, "b (m d) -> b m d", m=self.n_latents) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.output_norm(tokens)


class AttentionUnpooling(nn.Module):
    """Multi-head cross-attention of genes to the latent slots of a cell, folded into one matrix product.

    Gene ``g`` attends in head ``h`` to slot ``m`` with weight ``softmax_m(query[g, h] . key[m, h])``; what it reads
    there it takes the inner product of with its read-out.

    Parameters
    ----------
    n_genes, n_slots, n_heads
        Genes, latent slots, heads.
    head_width
        Channels of a slot in a head.
    key_width
        Channels of queries and keys in a head.
    """

    def __init__(self, n_genes: int, n_slots: int, n_heads: int, head_width: int, key_width: int = 8) -> None:
        super().__init__()
        # Genes run last in both tables: see scldm.vae.kernels.
        self.queries = nn.Parameter(torch.randn(n_heads, key_width, n_genes))
        self.keys = nn.Parameter(torch.randn(n_slots, n_heads, key_width) * 0.1 / math.sqrt(key_width))
        # Small: what a rare gene starts with it keeps for long, since few counts pull at it.
        self.read_out = nn.Parameter(torch.randn(n_heads, head_width, n_genes) * 0.01)

    def gene_weights(self, genes: Int64[Tensor, " genes"] | None = None) -> Float[Tensor, "channels genes"]:
        """Read-outs with the attention weights folded in; channels run over slots, then heads, then head channels."""
        queries, read_out = (
            (self.queries, self.read_out) if genes is None else (self.queries[..., genes], self.read_out[..., genes])
        )
        weights = einsum(self.keys, queries, "m h k, h k g -> h m g").softmax(dim=1)
        # Times the number of slots: uniform attention then leaves the scale of the read-out as it is.
        return fold_read_outs(rearrange(weights * self.keys.shape[0], "h m g -> m h g"), read_out)


class WideDecoder(nn.Module):
    """Un-pools latent tokens into a log rate per gene: self-attention blocks, mixing and norm, attention un-pooling.

    Parameters
    ----------
    n_genes, n_latents, latent_channels
        Sizes of the counts and of the latents.
    width, n_layers, n_heads
        Of the self-attention blocks.
    n_cross_heads
        Heads of the un-pooling.
    table_width
        Channels of the cell features, shared out among latent slots and heads.
    gene_totals
        UMI counts of every gene over the training cells: the log rates start there. None starts from equal rates.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        n_latents: int,
        latent_channels: int,
        width: int,
        n_layers: int,
        n_heads: int,
        n_cross_heads: int,
        table_width: int,
        gene_totals: Float[np.ndarray, " genes"] | None = None,
    ) -> None:
        super().__init__()
        self.input = nn.Linear(latent_channels, width)
        self.positions = nn.Parameter(torch.randn(n_latents, width) * 0.02)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, n_heads) for _ in range(n_layers))
        self.mix = nn.Sequential(
            nn.LayerNorm(n_latents * width),
            nn.Linear(n_latents * width, table_width),
            nn.SiLU(),
            nn.Linear(table_width, table_width),
            # Features of a fixed scale: otherwise they grow as the prior on the read-outs shrinks those, and undo it.
            nn.LayerNorm(table_width, elementwise_affine=False),
        )
        self.unpooling = AttentionUnpooling(
            n_genes, n_latents, n_cross_heads, table_width // (n_latents * n_cross_heads)
        )
        totals = torch.ones(n_genes) if gene_totals is None else torch.as_tensor(gene_totals + 0.5, dtype=torch.float32)
        self.bias = nn.Parameter((totals / totals.sum()).log())

    def features(self, latents: Float[Tensor, "cells latents channels"]) -> Float[Tensor, "cells table_width"]:
        """Decode the latent tokens into all that the rate of any gene needs to know of a cell."""
        tokens = self.input(latents) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.mix(tokens.flatten(1))

    def log_rates(
        self, features: Float[Tensor, "cells table_width"], genes: Int64[Tensor, " genes"] | None = None
    ) -> Float[Tensor, "cells genes"]:
        """Unnormalised log rates; that of a gene does not depend on which others are asked for.

        Parameters
        ----------
        features
            From :meth:`features`.
        genes
            Positions in the schema; None means all genes.
        """
        bias = self.bias if genes is None else self.bias[genes]
        return torch.addmm(bias, features, self.unpooling.gene_weights(genes))

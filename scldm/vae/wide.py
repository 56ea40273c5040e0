"""The wide layout of the VAE: capacity in per-gene tables, one multiply-add per (cell, gene, channel).

Both directions are multi-head cross-attention; :mod:`scldm.vae.pooling` and :mod:`scldm.vae.unpooling` say how it comes
down to sums of table rows and to one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from scldm.data.batch import CellBatch
from scldm.nn.attention import SelfAttentionBlock
from scldm.nn.embeddings import AttributeEmbedding
from scldm.vae.base import Decoder, Encoder
from scldm.vae.config import VAEConfig
from scldm.vae.counts.base import LOG_RATE, Heads
from scldm.vae.pooling import AttentionPooling
from scldm.vae.unpooling import AttentionUnpooling

__all__ = ["WideDecoder", "WideEncoder", "build"]


def build(
    config: VAEConfig,
    n_genes: int,
    *,
    heads: Sequence[str] = (LOG_RATE,),
    gene_totals: Float[np.ndarray, " genes"] | None = None,
    n_categories: Sequence[int] = (),
    n_continuous: int = 0,
) -> tuple[Encoder, Decoder]:
    """Build encoder and decoder; parameters as in :class:`~scldm.vae.model.VAE`, ``heads`` those of the likelihood."""
    encoder = WideEncoder(
        n_genes,
        n_latents=config.n_latents,
        width=config.width,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_cross_heads=config.n_cross_heads,
        table_width=config.table_width,
        dropout=config.dropout,
        n_categories=n_categories,
        n_continuous=n_continuous,
    )
    decoder = WideDecoder(
        n_genes,
        n_latents=config.n_latents,
        latent_channels=config.latent_channels,
        width=config.width,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_cross_heads=config.n_cross_heads,
        table_width=config.table_width,
        read_out_std=config.read_out_std,
        heads=heads,
        gene_totals=gene_totals,
    )
    return encoder, decoder


class WideEncoder(Encoder):
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

    ignores_zero_counts = True

    @property
    def dropout_channels(self) -> int:
        """See :attr:`Encoder.dropout_channels`; these are the pooled channels."""
        return self.mix_output.in_features if self.dropout else 0

    def forward(
        self, batch: CellBatch, pooled_dropout: Float[Tensor, "cells channels"] | None = None
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


class WideDecoder(Decoder):
    """Un-pools latent tokens into heads of every gene: self-attention blocks, mixing and norm, attention un-pooling.

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
    read_out_std
        Standard deviation of the Gaussian prior on the read-outs of :meth:`penalty`.
    heads
        What to decode for every gene.
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
        read_out_std: float,
        heads: Sequence[str] = (LOG_RATE,),
        gene_totals: Float[np.ndarray, " genes"] | None = None,
    ) -> None:
        super().__init__()
        self.read_out_std = read_out_std
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
        head_width = table_width // (n_latents * n_cross_heads)
        self.unpooling = AttentionUnpooling(n_genes, n_latents, n_cross_heads, head_width, further=heads[1:])
        totals = torch.ones(n_genes) if gene_totals is None else torch.as_tensor(gene_totals + 0.5, dtype=torch.float32)
        self.bias = nn.Parameter((totals / totals.sum()).log())

    def features(self, latents: Float[Tensor, "cells latents channels"]) -> Float[Tensor, "cells table_width"]:
        """Decode the latent tokens into all that any gene needs to know of a cell."""
        tokens = self.input(latents) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.mix(tokens.flatten(1))

    def forward(self, latents: Float[Tensor, "cells latents channels"]) -> Heads:
        """See :meth:`Decoder.forward`."""
        features = self.features(latents)
        # bfloat16 has three digits: two genes whose rates differ by less would be one.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            return {
                name: torch.addmm(self.bias, features, weights) if name == LOG_RATE else features @ weights
                for name, weights in self.unpooling.gene_weights().items()
            }

    def penalty(self, n_cells: int) -> Tensor | float:
        """Negative logarithm of the Gaussian prior on the read-outs, in nats per training cell.

        It is a part of what is minimised, not a decay of the weights: Adam moves the weights of a gene with ten counts
        as fast as those of one with ten thousand, and only a penalty that is weighed against the likelihood leaves the
        first where they are.
        """
        return self.unpooling.squares() / (2 * self.read_out_std**2 * n_cells)

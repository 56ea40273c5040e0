"""The published autoencoder layout: narrow gene embeddings, softmax attention, and a SwiGLU on every (cell, gene).

It is the yardstick for faster layouts, and the way to load published weights (arXiv 2511.02986). What is kept from the
publication is the function computed; padding is masked and counts are seen unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scldm.data.batch import CellBatch
from scldm.nn.attention import EPS, CrossAttentionBlock, SelfAttentionBlock
from scldm.vae.base import Decoder, Encoder
from scldm.vae.config import VAEConfig
from scldm.vae.counts.base import LOG_RATE, Heads

__all__ = ["PublishedDecoder", "PublishedEncoder", "build", "gene_table"]


def build(
    config: VAEConfig,
    n_genes: int,
    *,
    heads: Sequence[str] = (LOG_RATE,),
    gene_totals: Float[np.ndarray, " genes"] | None = None,
    n_categories: Sequence[int] = (),
    n_continuous: int = 0,
) -> tuple[Encoder, Decoder]:
    """Build encoder and decoder; parameters as in :class:`~scldm.vae.model.VAE`, ``heads`` those of the likelihood.

    This layout has no bias per gene that could start from ``gene_totals``, and its encoder sees no attributes.
    """
    table = gene_table(n_genes, config.width)
    encoder = PublishedEncoder(
        table,
        config.n_latents,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_cross_heads=config.n_cross_heads,
        gene_tokens=config.gene_tokens,
        mask_padding=config.mask_padding,
    )
    decoder = PublishedDecoder(
        table,
        config.latent_channels,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        n_cross_heads=config.n_cross_heads,
        heads=heads,
    )
    return encoder, decoder


def gene_table(n_genes: int, width: int) -> nn.Embedding:
    """Gene embedding that encoder and decoder share; its last row, index ``n_genes``, is the padding token.

    The padding token matters only to an encoder with ``mask_padding=False``.
    """
    return nn.Embedding(n_genes + 1, width)


class _FiLMTokens(nn.Module):
    """Normalised gene embedding, scaled and shifted by a function of the count.

    Multiplying an embedding by a count and normalising afterwards cancels the count; this injects it after the norm.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.count = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(
        self,
        table: Float[Tensor, "rows width"],
        genes: Int64[Tensor, "cells tokens"],
        counts: Float[Tensor, "cells tokens"],
        library_size: Float[Tensor, " cells"],
    ) -> Float[Tensor, "cells tokens width"]:
        # A cell without any count has only zeros to scale, so the 1 is never seen.
        log1p_cp10k = torch.log1p(counts * (1e4 / library_size.clamp(min=1.0))[:, None])
        scale, shift = self.count(torch.stack([torch.log1p(counts), log1p_cp10k], dim=-1)).chunk(2, dim=-1)
        # Normalising the table costs less than normalising its rows once for every cell.
        embedded = nn.functional.embedding(genes, self.norm(table))
        return torch.addcmul(shift, embedded, 1 + scale)


class _Log1pTokens(nn.Module):
    """Gene embedding times log1p(count); the token norm that follows cancels the count."""

    def forward(
        self,
        table: Float[Tensor, "rows width"],
        genes: Int64[Tensor, "cells tokens"],
        counts: Float[Tensor, "cells tokens"],
        library_size: Float[Tensor, " cells"],
    ) -> Float[Tensor, "cells tokens width"]:
        return nn.functional.embedding(genes, table) * torch.log1p(counts)[..., None]


class _ProjConcatTokens(nn.Module):
    """Linear map of the gene embedding beside log1p(count), the latter repeated to the same width."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Linear(2 * width, width)

    def forward(
        self,
        table: Float[Tensor, "rows width"],
        genes: Int64[Tensor, "cells tokens"],
        counts: Float[Tensor, "cells tokens"],
        library_size: Float[Tensor, " cells"],
    ) -> Float[Tensor, "cells tokens width"]:
        # The map is linear: gene part from the table, and the repeated count meets only the sum of its columns.
        of_gene, of_count = self.mix.weight.chunk(2, dim=1)
        projected = nn.functional.linear(table, of_gene, self.mix.bias)
        embedded = nn.functional.embedding(genes, projected)
        return torch.addcmul(embedded, torch.log1p(counts)[..., None], of_count.sum(dim=1))


class PublishedEncoder(Encoder):
    """Pools the expressed genes of a cell into latent tokens: MCAB with learned queries, then self-attention blocks.

    Parameters
    ----------
    gene_embedding
        From :func:`gene_table`; its sizes give the number of genes and the width.
    n_latents
        Number of inducing points, the latent tokens of a cell.
    n_layers, n_heads
        Self-attention blocks and their heads.
    n_cross_heads
        Heads of the pooling.
    gene_tokens
        How gene and count become a token: ``"film"`` injects log1p(count) and log1p CP10K after normalisation;
        ``"log1p"`` and ``"projconcat"`` are the published ones, of which the first is blind to the size of a count.
    mask_padding
        False lets latents attend to padding, as the published model does: then they depend on the pad length.
    """

    def __init__(
        self,
        gene_embedding: nn.Embedding,
        n_latents: int,
        *,
        n_layers: int = 8,
        n_heads: int = 8,
        n_cross_heads: int = 4,
        gene_tokens: str = "film",
        mask_padding: bool = True,
    ):
        super().__init__()
        width = gene_embedding.embedding_dim
        self.mask_padding = mask_padding
        self.padding_token = gene_embedding.num_embeddings - 1
        self.gene_embedding = gene_embedding
        self.tokens: nn.Module
        match gene_tokens:
            case "film":
                self.tokens = _FiLMTokens(width)
            case "log1p":
                self.tokens = _Log1pTokens()
            case "projconcat":
                self.tokens = _ProjConcatTokens(width)
            case _:
                raise ValueError(f"gene_tokens must be 'film', 'log1p' or 'projconcat', got '{gene_tokens}'")
        # Small, so that what a cell's own genes contribute is not drowned at the start.
        self.inducing_points = nn.Parameter(0.02 * torch.randn(1, n_latents, width))
        self.pooling = CrossAttentionBlock(width, n_cross_heads, normalise_tokens=gene_tokens != "film")
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, n_heads) for _ in range(n_layers))

    def forward(
        self, batch: CellBatch, pooled_dropout: Float[Tensor, "cells channels"] | None = None
    ) -> Float[Tensor, "cells latents width"]:
        """See :meth:`Encoder.forward`; this layout has no dropout."""
        genes, counts, mask = batch.padded()
        return self.pool(genes, counts, mask, batch.library_size)

    def pool(
        self,
        genes: Int64[Tensor, "cells tokens"],
        counts: Float[Tensor, "cells tokens"],
        mask: Bool[Tensor, "cells tokens"],
        library_size: Float[Tensor, " cells"],
    ) -> Float[Tensor, "cells latents width"]:
        """Hidden latent tokens from padded sets of genes.

        Parameters
        ----------
        genes, counts
            Schema gene index and UMI count of every token; whatever is under the padding is ignored.
        mask
            False where a token is padding.
        library_size
            UMI of the whole cell.
        """
        genes = torch.where(mask, genes, self.padding_token)
        counts = torch.where(mask, counts, 0.0)
        tokens = self.tokens(self.gene_embedding.weight, genes, counts, library_size)
        seen = None
        if self.mask_padding:
            # Attention over nothing is NaN; a cell without genes sees the padding token instead.
            seen = mask | ~mask.any(dim=1, keepdim=True)
        latents = self.pooling(self.inducing_points, tokens, seen)
        for block in self.blocks:
            latents = block(latents)
        return latents


class PublishedDecoder(Decoder):
    """Un-pools latent tokens into heads of every gene: self-attention blocks, then MCAB with gene queries.

    Parameters
    ----------
    gene_embedding
        The encoder's, where its weights are registered and saved; they are not part of the decoder's own state.
    latent_channels
        Channels of the latents that come in.
    n_layers, n_heads
        Self-attention blocks and their heads.
    n_cross_heads
        Heads of the un-pooling.
    heads
        What to decode for every gene, each by a linear map of what the gene's query came back with.
    gene_chunk
        Genes decoded at a time. In training the intermediate results of a chunk are recomputed instead of stored.
    """

    def __init__(
        self,
        gene_embedding: nn.Embedding,
        latent_channels: int,
        *,
        n_layers: int = 8,
        n_heads: int = 8,
        n_cross_heads: int = 4,
        heads: Sequence[str] = (LOG_RATE,),
        gene_chunk: int = 1024,
    ):
        super().__init__()
        width = gene_embedding.embedding_dim
        self.n_genes = gene_embedding.num_embeddings - 1
        self.gene_chunk = gene_chunk
        # In a tuple, so that the shared table is registered once, by the encoder: safetensors refuses shared tensors.
        self._shared = (gene_embedding,)
        self.input_norm = nn.LayerNorm(latent_channels, eps=EPS, elementwise_affine=False)
        self.input = nn.Linear(latent_channels, width, bias=False)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, n_heads) for _ in range(n_layers))
        self.unpooling = CrossAttentionBlock(width, n_cross_heads)
        # No bias: rates are a softmax over genes, which a constant does not change.
        self.log_rate = nn.Linear(width, 1, bias=False)
        self.further = nn.ModuleDict({name: nn.Linear(width, 1, bias=False) for name in heads[1:]})
        for head in self.further.values():
            # At first the same for all: cells and genes differ only as far as the data ask for it.
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]

    def features(self, latents: Float[Tensor, "cells latents channels"]) -> Float[Tensor, "cells latents width"]:
        """Decode the latent tokens into all that any gene needs to know of a cell."""
        features = self.input(self.input_norm(latents))
        for block in self.blocks:
            features = block(features)
        return features

    def forward(self, latents: Float[Tensor, "cells latents channels"]) -> Heads:
        """See :meth:`Decoder.forward`."""
        (gene_embedding,) = self._shared
        queries = gene_embedding.weight[: self.n_genes]
        keys_values = self.unpooling.keys_values(self.features(latents))
        recompute = self.training and torch.is_grad_enabled() and queries.shape[0] > self.gene_chunk
        chunks = [
            checkpoint(self._heads_of_chunk, chunk, keys_values, use_reentrant=False, preserve_rng_state=False)
            if recompute
            else self._heads_of_chunk(chunk, keys_values)
            for chunk in queries.split(self.gene_chunk)
        ]
        names = (LOG_RATE, *self.further)
        return {name: torch.cat(parts, dim=1) for name, parts in zip(names, zip(*chunks, strict=True), strict=True)}

    def _heads_of_chunk(
        self,
        queries: Float[Tensor, "genes width"],
        keys_values: Float[Tensor, "2 cells heads latents channels"],
    ) -> tuple[Float[Tensor, "cells genes"], ...]:
        attended = self.unpooling.attend(queries[None], keys_values)
        # As in the wide layout: bfloat16 would make one gene of two whose rates are nearly alike.
        with torch.autocast(attended.device.type, enabled=False):
            attended = attended.float()
            return tuple(head(attended).squeeze(-1) for head in (self.log_rate, *self.further.values()))

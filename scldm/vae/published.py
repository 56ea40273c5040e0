"""The published autoencoder layout: narrow gene embeddings, softmax attention, and a SwiGLU on every (cell, gene).

It is the yardstick for faster layouts, and the way to load published weights (arXiv 2511.02986). What is kept from the
publication is the function computed; padding is masked and counts are seen unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from scldm.data.batch import CellBatch
from scldm.nn.attention import CrossAttentionBlock, SelfAttentionBlock
from scldm.vae.likelihood import NegativeBinomial

__all__ = [
    "PublishedDecoder",
    "PublishedEncoder",
    "convert_published_vae_state",
    "gene_table",
]


def gene_table(n_genes: int, width: int) -> nn.Embedding:
    """Gene embedding that encoder and decoder share; its last row, index ``n_genes``, is the padding token.

    The padding token matters only to an encoder with ``mask_padding=False``.
    """
    return nn.Embedding(n_genes + 1, width)


class _FiLMTokens(nn.Module):
    """Normalised gene embedding, scaled and shifted by a function of the count.

    Multiplying an embedding by a count and normalising afterwards cancels the count; this injects it after the norm.
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps)
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


class PublishedEncoder(nn.Module):
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
    eps
        Added to the variance in the layer norms.
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
        eps: float = 1e-8,
    ):
        super().__init__()
        width = gene_embedding.embedding_dim
        self.mask_padding = mask_padding
        self.padding_token = gene_embedding.num_embeddings - 1
        self.gene_embedding = gene_embedding
        self.tokens: nn.Module
        match gene_tokens:
            case "film":
                self.tokens = _FiLMTokens(width, eps)
            case "log1p":
                self.tokens = _Log1pTokens()
            case "projconcat":
                self.tokens = _ProjConcatTokens(width)
            case _:
                raise ValueError(f"gene_tokens must be 'film', 'log1p' or 'projconcat', got '{gene_tokens}'")
        # Small, so that what a cell's own genes contribute is not drowned at the start.
        self.inducing_points = nn.Parameter(0.02 * torch.randn(1, n_latents, width))
        self.pooling = CrossAttentionBlock(width, n_cross_heads, eps=eps, normalise_tokens=gene_tokens != "film")
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, n_heads, eps=eps) for _ in range(n_layers))

    def forward(self, batch: CellBatch) -> Float[Tensor, "cells latents width"]:
        """Hidden latent tokens of every cell, before any bottleneck."""
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


class PublishedDecoder(nn.Module):
    """Un-pools latent tokens into a log rate per gene: self-attention blocks, then MCAB with gene queries.

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
    eps
        Added to the variance in the layer norms.
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
        eps: float = 1e-8,
        gene_chunk: int = 1024,
    ):
        super().__init__()
        width = gene_embedding.embedding_dim
        self.n_genes = gene_embedding.num_embeddings - 1
        self.gene_chunk = gene_chunk
        # In a tuple, so that the shared table is registered once, by the encoder: safetensors refuses shared tensors.
        self._shared = (gene_embedding,)
        self.input_norm = nn.LayerNorm(latent_channels, eps=eps, elementwise_affine=False)
        self.input = nn.Linear(latent_channels, width, bias=False)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, n_heads, eps=eps) for _ in range(n_layers))
        self.unpooling = CrossAttentionBlock(width, n_cross_heads, eps=eps)
        # No bias: rates are a softmax over genes, which a constant does not change.
        self.log_rate = nn.Linear(width, 1, bias=False)

    def features(self, latents: Float[Tensor, "cells latents channels"]) -> Float[Tensor, "cells latents width"]:
        """Decode the latent tokens into all that the rate of any gene needs to know of a cell."""
        features = self.input(self.input_norm(latents))
        for block in self.blocks:
            features = block(features)
        return features

    def log_rates(
        self, features: Float[Tensor, "cells latents width"], genes: Int64[Tensor, " genes"] | None = None
    ) -> Float[Tensor, "cells genes"]:
        """Unnormalised log rates; that of a gene does not depend on which others are asked for.

        Parameters
        ----------
        features
            From :meth:`features`.
        genes
            Schema gene indices, in any order; None means all genes.
        """
        (gene_embedding,) = self._shared
        queries = gene_embedding.weight[: self.n_genes] if genes is None else gene_embedding(genes)
        keys_values = self.unpooling.keys_values(features)
        recompute = self.training and torch.is_grad_enabled() and queries.shape[0] > self.gene_chunk
        parts = [
            checkpoint(self._chunk_log_rates, chunk, keys_values, use_reentrant=False, preserve_rng_state=False)
            if recompute
            else self._chunk_log_rates(chunk, keys_values)
            for chunk in queries.split(self.gene_chunk)
        ]
        return torch.cat(parts, dim=1)

    def _chunk_log_rates(
        self,
        queries: Float[Tensor, "genes width"],
        keys_values: Float[Tensor, "2 cells heads latents channels"],
    ) -> Float[Tensor, "cells genes"]:
        return self.log_rate(self.unpooling.attend(queries[None], keys_values)).squeeze(-1)


def convert_published_vae_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a published autoencoder to those of a :class:`~scldm.vae.model.VAE`.

    The VAE is one with ``layout="published"``, ``bottleneck="layernorm"`` and ``mask_padding=False``. The published
    gene table starts with the padding token and ours ends with it: our gene ``i`` is theirs ``i + 1``.

    Parameters
    ----------
    state
        Published parameter names and values.

    Returns
    -------
    Our parameter names and values, for ``load_state_dict``; the head's bias is dropped, since rates are a softmax.

    Raises
    ------
    ValueError
        When the encoder has positions that are not 0: latent tokens here have none.
    """
    positions = state.get("encoder.pos_embed")
    if positions is not None and bool(positions.count_nonzero()):
        raise ValueError("encoder.pos_embed is not zero; latent tokens of the published layout have no positions here")
    converted = {
        "encoder.gene_embedding.weight": torch.roll(state["input_layer.gene_embedding.weight"], -1, dims=0),
        "encoder.inducing_points": state["encoder.ca_layer.inducing_points"][None],
        "bottleneck.weight": state["encoder.encoder_latent_input.0.weight"],
        "decoder.input.weight": state["decoder.decoder_latent_input.1.weight"],
        "decoder.log_rate.weight": state["decoder_head.params.weight"],
        "likelihood.scaled_log_theta": state["decoder_head.theta.weight"][1:, 0] / NegativeBinomial.STEP_FACTOR,
    }
    if "input_layer.projection.mix.weight" in state:
        converted |= {
            f"encoder.tokens.mix.{kind}": state[f"input_layer.projection.mix.{kind}"] for kind in ("weight", "bias")
        }
    return {
        **converted,
        **_cross_attention_block(state, "encoder.ca_layer", "encoder.pooling"),
        **_self_attention_blocks(state, "encoder.encoder_layers", "encoder.blocks"),
        **_self_attention_blocks(state, "decoder.decoder_layers", "decoder.blocks"),
        **_cross_attention_block(state, "decoder.decoder_cross_attention", "decoder.unpooling"),
    }


def _norms_and_feed_forward(
    state: Mapping[str, Tensor], theirs: str, ours: str, norms: Mapping[str, str]
) -> dict[str, Tensor]:
    converted = {
        f"{ours}.{our_norm}.{kind}": state[f"{theirs}.{their_norm}.{kind}"]
        for our_norm, their_norm in norms.items()
        for kind in ("weight", "bias")
    }
    gate, value = state[f"{theirs}.mlp.w1.weight"], state[f"{theirs}.mlp.w2.weight"]
    converted[f"{ours}.feed_forward.gate_value.weight"] = torch.cat([gate, value])
    converted[f"{ours}.feed_forward.output.weight"] = state[f"{theirs}.mlp.c_proj.weight"]
    converted[f"{ours}.attention.output.weight"] = state[f"{theirs}.attn.c_proj.weight"]
    return converted


def _cross_attention_block(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    norms = {"query_norm": "ln_1q", "token_norm": "ln_1", "feed_forward_norm": "ln_2"}
    converted = _norms_and_feed_forward(state, theirs, ours, norms)
    converted[f"{ours}.attention.query.weight"] = state[f"{theirs}.attn.c_attn_q.weight"]
    converted[f"{ours}.attention.key_value.weight"] = state[f"{theirs}.attn.c_attn.weight"]
    return converted


def _self_attention_blocks(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    norms = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}
    n_layers = len({name.split(".")[2] for name in state if name.startswith(f"{theirs}.")})
    converted: dict[str, Tensor] = {}
    for i in range(n_layers):
        converted |= _norms_and_feed_forward(state, f"{theirs}.{i}", f"{ours}.{i}", norms)
        converted[f"{ours}.{i}.attention.query_key_value.weight"] = state[f"{theirs}.{i}.attn.c_attn.weight"]
    return converted

"""Attention blocks: self-attention over latent tokens, and the multi-head cross-attention block (MCAB)."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

__all__ = [
    "EPS",
    "CrossAttention",
    "CrossAttentionBlock",
    "SelfAttention",
    "SelfAttentionBlock",
    "SwiGLU",
    "swiglu_width",
]

#: What is added to the variance in the layer norms, as in the published implementation.
EPS = 1e-8
#: Up to this many tokens, attention on a CPU is computed by plain matrix products: at 64, both ways took the same time.
FEW_TOKENS = 64


def swiglu_width(width: int) -> int:
    """Hidden width of a SwiGLU as large as a four-fold MLP: 8/3 of the width, rounded up to a multiple of 4."""
    return 4 * math.ceil((8 * width // 3) / 4)


def _checked_heads(width: int, n_heads: int) -> int:
    if n_heads < 1 or width % n_heads:
        raise ValueError(f"width {width} is not a multiple of the number of heads, {n_heads}")
    return n_heads


class SwiGLU(nn.Module):
    """Gated feed-forward layer, W_out (silu(W_gate x) * W_value x) (Shazeer, 2020).

    Parameters
    ----------
    width
        Channels of the input and of the output; in between there are :func:`swiglu_width`.
    """

    def __init__(self, width: int):
        super().__init__()
        hidden = swiglu_width(width)
        self.gate_value = nn.Linear(width, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply the layer to every vector."""
        gate, value = self.gate_value(x).chunk(2, dim=-1)
        return self.output(silu(gate) * value)


class SelfAttention(nn.Module):
    """Multi-head self-attention; no mask, because latent tokens are never padded.

    Parameters
    ----------
    width
        Channels of a token.
    n_heads
        Heads, each a contiguous slice of ``width / n_heads`` channels.
    bias
        Whether the projections have biases.
    """

    def __init__(self, width: int, n_heads: int, *, bias: bool = False):
        super().__init__()
        self.n_heads = _checked_heads(width, n_heads)
        self.query_key_value = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, tokens: Float[Tensor, "cells tokens width"]) -> Float[Tensor, "cells tokens width"]:
        """Let every token of a cell attend to all tokens of that cell."""
        packed = self.query_key_value(tokens)
        query, key, value = rearrange(packed, "b t (three h d) -> three b h t d", three=3, h=self.n_heads)
        return self.output(rearrange(_attend(query, key, value), "b h t d -> b t (h d)"))


def _attend(
    query: Float[Tensor, "cells heads tokens channels"],
    key: Float[Tensor, "cells heads tokens channels"],
    value: Float[Tensor, "cells heads tokens channels"],
) -> Float[Tensor, "cells heads tokens channels"]:
    if query.device.type != "cpu" or query.shape[2] > FEW_TOKENS:
        return scaled_dot_product_attention(query, key, value)
    # The fused kernel for CPUs is made for long sequences; for a handful of tokens, plain calls take a third of its
    # time, forward and backward. Queries run last in the scores: a softmax over a short last axis is not vectorised.
    queries, keys, values = (x.flatten(0, 1) for x in (query, key, value))
    weights = torch.bmm(keys * query.shape[-1] ** -0.5, queries.transpose(1, 2)).softmax(dim=1)
    return torch.bmm(weights.transpose(1, 2), values).unflatten(0, query.shape[:2])


class CrossAttention(nn.Module):
    """Multi-head attention of queries to another set of tokens.

    Queries that all cells share (inducing points, gene embeddings) come with a first axis of length 1: they are
    projected once, and only their view is repeated for the cells.

    Parameters
    ----------
    width
        Channels of queries and tokens.
    n_heads
        Heads, each a contiguous slice of ``width / n_heads`` channels.
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.n_heads = _checked_heads(width, n_heads)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def keys_values(
        self, tokens: Float[Tensor, "cells tokens width"]
    ) -> Float[Tensor, "2 cells heads tokens channels"]:
        """Project the tokens; the result can be attended to by many lists of queries."""
        return rearrange(self.key_value(tokens), "b t (two h d) -> two b h t d", two=2, h=self.n_heads)

    def attend(
        self,
        queries: Float[Tensor, "one_or_cells queries width"],
        keys_values: Float[Tensor, "2 cells heads tokens channels"],
        mask: Bool[Tensor, "cells tokens"] | None = None,
    ) -> Float[Tensor, "cells queries width"]:
        """Attend to projected tokens; where ``mask`` is False a token is not seen."""
        key, value = keys_values.unbind(0)
        query = rearrange(self.query(queries), "b q (h d) -> b h q d", h=self.n_heads)
        query = query.expand(key.shape[0], -1, -1, -1)
        seen = None if mask is None else mask[:, None, None, :]
        attended = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.output(rearrange(attended, "b h q d -> b q (h d)"))

    def forward(
        self,
        queries: Float[Tensor, "one_or_cells queries width"],
        tokens: Float[Tensor, "cells tokens width"],
        mask: Bool[Tensor, "cells tokens"] | None = None,
    ) -> Float[Tensor, "cells queries width"]:
        """Attend to tokens; where ``mask`` is False a token is not seen."""
        return self.attend(queries, self.keys_values(tokens), mask)


class SelfAttentionBlock(nn.Module):
    """Pre-norm transformer block: x + Attn(LN x), then x + SwiGLU(LN x).

    Parameters
    ----------
    width, n_heads
        As in :class:`SelfAttention`.
    """

    def __init__(self, width: int, n_heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=EPS)
        self.attention = SelfAttention(width, n_heads)
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPS)
        self.feed_forward = SwiGLU(width)

    def forward(self, tokens: Float[Tensor, "cells tokens width"]) -> Float[Tensor, "cells tokens width"]:
        """Update every token of a cell from all its tokens."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.feed_forward(self.feed_forward_norm(tokens))


class CrossAttentionBlock(nn.Module):
    """Multi-head cross-attention block (MCAB): q + Attn(LN q, LN tokens), then q + SwiGLU(LN q).

    Parameters
    ----------
    width, n_heads
        As in :class:`CrossAttention`.
    normalise_tokens
        False when the tokens come normalised, as those whose counts are injected after the norm.
    """

    def __init__(self, width: int, n_heads: int, *, normalise_tokens: bool = True):
        super().__init__()
        self.query_norm = nn.LayerNorm(width, eps=EPS)
        self.token_norm = nn.LayerNorm(width, eps=EPS) if normalise_tokens else nn.Identity()
        self.attention = CrossAttention(width, n_heads)
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPS)
        self.feed_forward = SwiGLU(width)

    def keys_values(
        self, tokens: Float[Tensor, "cells tokens width"]
    ) -> Float[Tensor, "2 cells heads tokens channels"]:
        """Normalise and project the tokens, once for many lists of queries."""
        return self.attention.keys_values(self.token_norm(tokens))

    def attend(
        self,
        queries: Float[Tensor, "one_or_cells queries width"],
        keys_values: Float[Tensor, "2 cells heads tokens channels"],
        mask: Bool[Tensor, "cells tokens"] | None = None,
    ) -> Float[Tensor, "cells queries width"]:
        """Update the queries from projected tokens; where ``mask`` is False a token is not seen."""
        queries = queries + self.attention.attend(self.query_norm(queries), keys_values, mask)
        return queries + self.feed_forward(self.feed_forward_norm(queries))

    def forward(
        self,
        queries: Float[Tensor, "one_or_cells queries width"],
        tokens: Float[Tensor, "cells tokens width"],
        mask: Bool[Tensor, "cells tokens"] | None = None,
    ) -> Float[Tensor, "cells queries width"]:
        """Update the queries from tokens; where ``mask`` is False a token is not seen."""
        return self.attend(queries, self.keys_values(tokens), mask)

"""Attention un-pooling of the wide layout: all genes of a cell by one matrix product.

Gene queries, latent-slot keys and read-outs are parameters, so the attention weights of a gene over the latent slots
fold into its read-out, and a head of all genes is the product of the cell features with these folded read-outs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scldm.vae.counts.base import LOG_RATE

__all__ = ["AttentionUnpooling", "fold_read_outs"]


class AttentionUnpooling(nn.Module):
    """Multi-head cross-attention of genes to the latent slots of a cell, folded into one matrix product.

    Gene ``g`` attends in head ``h`` to slot ``m`` with weight ``softmax_m(query[g, h] . key[m, h])``; of what it reads
    there it takes the inner product with its read-out. All that the likelihood asks of a gene is read with the same
    attention, by a read-out for each.

    Parameters
    ----------
    n_genes, n_slots, n_heads
        Genes, latent slots, heads of the attention.
    head_width
        Channels of a slot in a head.
    key_width
        Channels of queries and keys in a head.
    further
        Names of what is read besides the log rate.
    """

    def __init__(
        self,
        n_genes: int,
        n_slots: int,
        n_heads: int,
        head_width: int,
        key_width: int = 8,
        further: Sequence[str] = (),
    ) -> None:
        super().__init__()
        # Genes run last in all tables, so that every pass is over contiguous numbers.
        self.queries = nn.Parameter(torch.randn(n_heads, key_width, n_genes))
        self.keys = nn.Parameter(torch.randn(n_slots, n_heads, key_width) * 0.1 / math.sqrt(key_width))
        # Small: what a rare gene starts with it keeps for long, since few counts pull at it.
        self.read_out = nn.Parameter(torch.randn(n_heads, head_width, n_genes) * 0.01)
        # Nothing is read at first: cells differ only as far as the data ask for it.
        self.further = nn.ParameterDict([(name, torch.zeros(n_heads, head_width, n_genes)) for name in further])

    def gene_weights(self) -> dict[str, Float[Tensor, "channels genes"]]:
        """Read-outs by name, the log rate's first, with the attention weights folded in.

        Channels run over slots, then heads, then head channels.
        """
        weights = einsum(self.keys, self.queries, "m h k, h k g -> h m g").softmax(dim=1)
        # Times the number of slots: uniform attention then leaves the scale of the read-out as it is.
        weights = rearrange(weights * self.keys.shape[0], "h m g -> m h g")
        return {name: fold_read_outs(weights, read_out) for name, read_out in self._read_outs().items()}

    def squares(self) -> Float[Tensor, ""]:
        """Add up the squares of all read-outs."""
        first, *others = (read_out.square().sum() for read_out in self._read_outs().values())
        return sum(others, start=first)

    def _read_outs(self) -> dict[str, Tensor]:
        return {LOG_RATE: self.read_out, **dict(self.further.items())}


def fold_read_outs(
    weights: Float[Tensor, "slots heads genes"], read_outs: Float[Tensor, "heads channels genes"]
) -> Float[Tensor, "slots_heads_channels genes"]:
    """Multiply the read-outs of every gene by its attention weights, ``weights[m, h, g] * read_outs[h, c, g]``.

    The gradient is written by hand; there is no second derivative.
    """
    return _FoldReadOuts.apply(weights, read_outs)


class _FoldReadOuts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, read_outs: Tensor) -> Tensor:
        ctx.save_for_backward(weights, read_outs)
        folded = read_outs.new_empty(len(weights), *read_outs.shape)
        for slot, weight in zip(folded.unbind(), weights.unbind(), strict=True):
            torch.mul(weight[:, None], read_outs, out=slot)
        return folded.flatten(0, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        weights, read_outs = ctx.saved_tensors
        slots = gradient.unflatten(0, (len(weights), *read_outs.shape[:2])).unbind()
        of_weights = torch.stack([(read_outs * slot).sum(1) for slot in slots])
        of_read_outs = torch.zeros_like(read_outs)
        for weight, slot in zip(weights.unbind(), slots, strict=True):
            of_read_outs.addcmul_(weight[:, None], slot)
        return of_weights, of_read_outs

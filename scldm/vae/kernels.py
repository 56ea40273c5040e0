"""The three operations over all genes that training spends its time in, each with a gradient written by hand.

Automatic differentiation would be right but passes over arrays of cells x genes, or genes x channels, some ten times
more often than their contents need. Each function here computes exactly what its docstring says, in the type of its
inputs, and the tests hold values and gradients against the plain formula. There are no second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

__all__ = ["fold_read_outs", "negative_binomial_nll", "weighted_bags"]


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


def weighted_bags(
    genes: Int64[Tensor, " entries"],
    cells: Int64[Tensor, " entries"],
    offsets: Int64[Tensor, " cells_plus_one"],
    weights: Float[Tensor, " entries"],
    *tables: Float[Tensor, "genes _"],
) -> tuple[Float[Tensor, "cells _"], ...]:
    """Sum the rows of the genes of every cell, times their weights, in each of some tables.

    Parameters
    ----------
    genes, cells, offsets, weights
        The entries in compressed sparse rows, with the cell of each; weights get no gradient.
    tables
        A row for every gene.
    """
    return _WeightedBags.apply(genes, cells, offsets, weights, *tables)


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


def fold_read_outs(
    weights: Float[Tensor, "slots heads genes"], read_outs: Float[Tensor, "heads channels genes"]
) -> Float[Tensor, "slots_heads_channels genes"]:
    """Multiply the read-outs of every gene by its attention weights, ``weights[m, h, g] * read_outs[h, c, g]``.

    Genes run last, so that every pass is over contiguous numbers.
    """
    return _FoldReadOuts.apply(weights, read_outs)


def _of_entries(
    theta: Tensor, genes: Tensor, entries: Tensor, function: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Inverse dispersion of every entry, and a function of it, evaluated once per gene where that is enough."""
    if theta.ndim == 1:
        return theta.index_select(0, genes), function(theta).index_select(0, genes)
    at = theta.reshape(-1).index_select(0, entries)
    return at, function(at)


class _NegativeBinomialNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_rates: Tensor, theta: Tensor, counts: Tensor, genes: Tensor, cells: Tensor, library_size: Tensor
    ) -> Tensor:
        entries = cells * log_rates.shape[1] + genes
        shares = log_rates.softmax(dim=1)
        # The largest share is at least one over the number of genes: its logarithm is safe.
        log_normaliser = log_rates.amax(dim=1) - shares.amax(dim=1).log()
        log_mean = log_rates.reshape(-1)[entries] + (library_size.log() - log_normaliser)[cells]
        mean = shares.mul_(library_size[:, None])
        zero_terms = (mean / theta).log1p_()
        nll = zero_terms @ theta if theta.ndim == 1 else (zero_terms * theta).sum(1)
        at, lgamma_at = _of_entries(theta, genes, entries, torch.lgamma)
        observed = (
            torch.lgamma(counts + at)
            - lgamma_at
            - torch.lgamma(counts + 1)
            + counts * (log_mean - torch.log(log_mean.exp() + at))
        )
        nll = nll - torch.zeros_like(nll).index_add(0, cells, observed)
        ctx.save_for_backward(mean, zero_terms, theta, counts, genes, cells, entries, library_size)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mean, zero_terms, theta, counts, genes, cells, entries, library_size = ctx.saved_tensors
        slope = mean + theta
        torch.div(mean, slope, out=slope)  # mu / (mu + theta)
        excess = slope.reshape(-1)[entries]
        rest = 1 - excess  # theta / (mu + theta)
        at, digamma_at = _of_entries(theta, genes, entries, torch.digamma)
        of_observed = gradient[cells] * (torch.digamma(counts + at) - digamma_at - counts * rest / at)
        if theta.ndim == 1:
            of_theta = (gradient @ zero_terms - gradient @ slope).index_add_(0, genes, of_observed, alpha=-1)
        else:
            of_theta = (zero_terms - slope) * gradient[:, None]
            of_theta.view(-1)[entries] -= of_observed
        # By the log mean: theta (mu - x) / (mu + theta); then through the softmax.
        slope *= theta
        slope.view(-1)[entries] = at * excess - counts * rest
        # A cell without counts has means of zero: whatever it is divided by, its gradient is zero.
        totals = library_size.clamp_min(torch.finfo(library_size.dtype).tiny)
        slope.addcmul_(mean, (slope.sum(1) / totals)[:, None], value=-1)
        slope *= gradient[:, None]
        return slope, of_theta, None, None, None, None


def negative_binomial_nll(
    log_rates: Float[Tensor, "cells genes"],
    theta: Float[Tensor, "... genes"],
    counts: Float[Tensor, " entries"],
    genes: Int64[Tensor, " entries"],
    cells: Int64[Tensor, " entries"],
    library_size: Float[Tensor, " cells"],
) -> Float[Tensor, " cells"]:
    """Negative log-likelihood of sparse counts, in nats per cell.

    Their law is negative binomial with means ``library_size * softmax(log_rates)``.

    Parameters
    ----------
    log_rates
        Unnormalised log rates of all genes.
    theta
        Inverse dispersions, per gene or per cell and gene.
    counts, genes, cells
        The positive counts of the cells, each pair of a cell and a gene once.
    library_size
        Expected total counts of every cell.

    Notes
    -----
    ``theta log(1 + mu / theta)``, summed over all genes, less the sum over the positive counts of
    ``lgamma(x + theta) - lgamma(theta) - lgamma(x + 1) + x log(mu / (mu + theta))`` (Lopez et al., 2018, eq. 2).
    """
    return _NegativeBinomialNLL.apply(log_rates, theta, counts, genes, cells, library_size)

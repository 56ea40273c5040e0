"""Counts of cells that add up to a depth: so many molecules, each of a gene."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scldm.seeds import child_rngs
from scldm.vae.counts.base import Heads, Likelihood
from scldm.vae.counts.sparse import SparseCounts

__all__ = ["draw_molecules", "sample_to_depth"]


@torch.no_grad()
def sample_to_depth(
    likelihood: Likelihood,
    heads: Heads,
    depth: Float[Tensor, " cells"],
    rng: torch.Generator,
    categories: Int[Tensor, " cells"] | None = None,
) -> SparseCounts:
    """Draw counts that add up to the depth of every cell.

    The rates of a cell are drawn first, with all the dispersion that the likelihood has, and then molecule by molecule
    its gene, in proportion to the rates.

    Parameters
    ----------
    likelihood, heads, categories
        As in :meth:`scldm.vae.counts.base.Likelihood.sample_rates`.
    depth
        Whole numbers of UMI, at least 1.
    rng
        The only source of randomness, on the device of the heads.
    """
    of_rates, of_molecules = child_rngs(rng, 2)
    rates = likelihood.sample_rates(heads, depth, of_rates, categories)
    # Behind closed gates, or with bursts only, nothing at all may be left of a cell of few genes.
    nothing = rates.sum(1, keepdim=True) <= 0
    if bool(nothing.any()):
        rates = torch.where(nothing, likelihood.expected_counts(heads, depth), rates)
    return draw_molecules(rates, depth, of_molecules)


@torch.no_grad()
def draw_molecules(
    rates: Float[Tensor, "cells genes"], depth: Float[Tensor, " cells"], rng: torch.Generator
) -> SparseCounts:
    """Draw multinomial counts.

    Parameters
    ----------
    rates
        What the probabilities of the genes are proportional to; at least one of every cell is positive.
    depth
        Whole numbers of UMI.
    rng
        The only source of randomness, on the device of the rates. The cells take their numbers one after the other.
    """
    n_genes, entries, counts = rates.shape[1], [], []
    # Cell by cell: the memory is that of the deepest cell alone.
    for cell, (row, n) in enumerate(zip(rates, depth.long().tolist(), strict=True)):
        ends = row.double().cumsum(0)
        uniform = torch.rand(n, dtype=torch.float64, generator=rng, device=rates.device) * ends[-1]
        # The first gene whose end is beyond the number: never one without a rate. The product may round up to the end.
        genes = torch.searchsorted(ends, uniform, right=True).clamp_max(torch.searchsorted(ends, ends[-1:]))
        drawn = torch.bincount(genes, minlength=n_genes)
        expressed = drawn.nonzero().squeeze(1)
        entries.append(cell * n_genes + expressed)
        counts.append(drawn[expressed].to(torch.float32))
    return SparseCounts(torch.cat(entries), torch.cat(counts), (len(rates), n_genes))

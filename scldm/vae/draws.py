"""Drawing sparse counts: a byte and two comparisons for every gene, all else only for those that may be expressed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

__all__ = ["SparseCounts", "draw_negative_binomial", "draw_poisson"]

#: Means above this are not inverted: the walk up their distribution would be long.
INVERSION_LIMIT = 20.0
#: Ratios of variance to mean above this are not inverted, for the same reason.
TAIL_LIMIT = 100.0
#: Steps of the walk between two removals of the draws that have arrived.
STEPS_AT_A_TIME = 4


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

    def to_csr(self, n_cells: int | None = None) -> sp.csr_matrix:
        """Give the counts of the first ``n_cells`` cells, or of all, as a canonical matrix of float32."""
        n_cells, n_genes = self.shape[0] if n_cells is None else n_cells, self.shape[1]
        entries = self.entries.cpu().numpy()
        starts = np.searchsorted(entries, np.arange(n_cells + 1) * n_genes)
        entries = entries[: starts[-1]]
        genes = (entries - np.repeat(np.arange(n_cells) * n_genes, np.diff(starts))).astype(np.int32)
        counts = self.counts[: len(entries)].cpu().numpy()
        return sp.csr_matrix((counts, genes, starts.astype(np.int32)), shape=(n_cells, n_genes))


@torch.no_grad()
def draw_negative_binomial(
    mean: Float[Tensor, "cells genes"],
    theta: Float[Tensor, "... genes"],
    generator: torch.Generator,
    inversion_limit: float = INVERSION_LIMIT,
    tail_limit: float = TAIL_LIMIT,
) -> SparseCounts:
    """Draw negative-binomial counts.

    Ordinary entries are drawn by inversion of their distribution; entries with a mean above ``inversion_limit``, or a
    ratio of variance to mean above ``tail_limit``, as Gamma-mixed Poisson.

    Parameters
    ----------
    mean
        Expected UMI counts, zero or positive.
    theta
        Inverse dispersions, per gene or per cell and gene.
    generator
        The only source of randomness, on the device of ``mean``.
    """
    limits = (theta * (tail_limit - 1)).clamp_max(inversion_limit)
    coarse, fine, gammas, poissons = _streams(generator, 4)
    entries, mu, tails, large = _candidates(mean, limits, coarse, fine)
    at = theta.reshape(-1).index_select(0, entries) if theta.ndim == 2 else theta[entries % mean.shape[1]]
    at = at.double()
    success = mu / (mu + at)
    # P(x > 0) through expm1: 1 - P(x = 0) would lose the rare genes to rounding.
    log_zero = -at * torch.log1p(mu / at)
    counts = _inverted(tails.masked_fill(large, 1.0), log_zero, at * success, success)
    chosen = large.nonzero().squeeze(1)
    if len(chosen):
        gamma = torch._standard_gamma(at[chosen].float(), generator=gammas)
        counts[chosen] = torch.poisson(gamma * (mu[chosen] / at[chosen]).float(), generator=poissons)
    return _positive(entries, counts, mean)


@torch.no_grad()
def draw_poisson(
    mean: Float[Tensor, "cells genes"], generator: torch.Generator, inversion_limit: float = INVERSION_LIMIT
) -> SparseCounts:
    """Draw Poisson counts; see :func:`draw_negative_binomial`."""
    limits = mean.new_full((mean.shape[1],), inversion_limit)
    coarse, fine, poissons = _streams(generator, 3)
    entries, mu, tails, large = _candidates(mean, limits, coarse, fine)
    counts = _inverted(tails.masked_fill(large, 1.0), -mu, mu, torch.zeros_like(mu))
    chosen = large.nonzero().squeeze(1)
    counts[chosen] = torch.poisson(mu[chosen].float(), generator=poissons)
    return _positive(entries, counts, mean)


def _streams(generator: torch.Generator, n: int) -> list[torch.Generator]:
    """Give each kind of draw a generator of its own.

    The generators of the CPU are sequential: what a cell draws there does not depend on the cells after it.
    """
    device = generator.device
    seeds = torch.randint(torch.iinfo(torch.int64).max, (n,), generator=generator, device=device)
    return [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]


def _candidates(
    mean: Tensor, limits: Tensor, coarse: torch.Generator, fine: torch.Generator
) -> tuple[Int64[Tensor, " entries"], Float64[Tensor, " entries"], Float64[Tensor, " entries"], Tensor]:
    """Entries that may be positive, with their means, their uniform numbers, and whether their mean is above its limit.

    A count is positive where its uniform number is below P(x > 0), which is at most its mean. The first eight bits of
    the number tell nearly always: they are drawn for all entries, the others for those that remain.
    """
    n = mean.numel()
    words = torch.empty(-(-n // 8), dtype=torch.int64, device=mean.device)
    words.random_(torch.iinfo(torch.int64).min, None, generator=coarse)
    bits = words.view(torch.uint8)[:n].view(mean.shape)
    large = mean > limits
    entries = ((mean * 256 >= bits) | large).reshape(-1).nonzero().squeeze(1)
    rest = torch.rand(entries.shape, generator=fine, device=mean.device).double()
    # Half a step of the grid of float32 numbers is added: a uniform number of exactly zero would have no count.
    uniform = (bits.reshape(-1)[entries] + (rest + 2.0**-25)) / 256
    return entries, mean.reshape(-1)[entries].double(), uniform, large.reshape(-1)[entries]


def _inverted(
    uniform: Float64[Tensor, " entries"],
    log_zero: Float64[Tensor, " entries"],
    first: Float64[Tensor, " entries"],
    slope: Float64[Tensor, " entries"],
) -> Float32[Tensor, " entries"]:
    """Walk up distributions with ``P(k) = P(k - 1) (first + (k - 1) slope) / k`` until ``P(x > k) <= uniform``."""
    counts = torch.zeros(len(uniform), dtype=torch.float32, device=uniform.device)
    walking = (uniform < -torch.expm1(log_zero)).nonzero().squeeze(1)
    uniform, log_zero, first, slope = (x[walking] for x in (uniform, log_zero, first, slope))
    probability, left = log_zero.exp(), -torch.expm1(log_zero)
    step, reached = 0, torch.zeros_like(uniform)
    while len(walking):
        for _ in range(STEPS_AT_A_TIME):
            # Invariant: left = P(x > step). A draw that has arrived stays: what is left only gets less.
            reached += uniform < left
            step += 1
            probability *= (first + (step - 1) * slope) / step
            left -= probability
        counts[walking] = reached.float()
        going = (uniform < left).nonzero().squeeze(1)
        walking, uniform, first, slope, probability, left, reached = (
            x[going] for x in (walking, uniform, first, slope, probability, left, reached)
        )
    return counts


def _positive(entries: Tensor, counts: Tensor, mean: Tensor) -> SparseCounts:
    positive = (counts > 0).nonzero().squeeze(1)
    return SparseCounts(entries[positive], counts[positive], (mean.shape[0], mean.shape[1]))

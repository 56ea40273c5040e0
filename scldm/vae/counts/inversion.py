"""Drawing sparse counts by inversion: a byte and two comparisons for every gene, the rest where it may be expressed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from scldm.vae.counts.sparse import SparseCounts

__all__ = ["INVERSION_LIMIT", "Candidates", "find_candidates", "invert"]

#: Means above this are not inverted: the walk up their distribution would be long.
INVERSION_LIMIT = 20.0
#: Steps of the walk between two removals of the draws that have arrived.
STEPS_AT_A_TIME = 4


@dataclass(frozen=True, eq=False)
class Candidates:
    """Entries of the cells x genes matrix whose counts may be positive.

    Attributes
    ----------
    entries
        Where they are in the row-major matrix, increasing; ``[entries]``.
    mean
        Their expected UMI counts; ``[entries]``.
    uniform
        The number in (0, 1) by which the count of each is drawn; ``[entries]``.
    large
        Whether a count is too large to be drawn by inversion; ``[entries]``.
    shape
        Cells and genes.
    """

    entries: Int64[Tensor, " entries"]
    mean: Float64[Tensor, " entries"]
    uniform: Float64[Tensor, " entries"]
    large: Bool[Tensor, " entries"]
    shape: tuple[int, int]

    def with_counts(self, counts: Float32[Tensor, " entries"]) -> SparseCounts:
        """Give the counts that were drawn for the candidates, without their zeros."""
        return SparseCounts(self.entries, counts, self.shape).where(counts > 0)


def find_candidates(
    mean: Float[Tensor, "cells genes"],
    limits: Float[Tensor, " genes"] | Float[Tensor, "cells genes"],
    coarse: torch.Generator,
    fine: torch.Generator,
) -> Candidates:
    """Draw a uniform number for every entry, and drop the entries whose counts are zero by it for certain.

    A count is positive where its uniform number is below P(x > 0), which is at most its mean. The first eight bits of
    the number tell nearly always: they are drawn for all entries, the others for those that remain.

    Parameters
    ----------
    mean
        Expected UMI counts, zero or positive.
    limits
        Means above which a count is not drawn by inversion.
    coarse, fine
        Of the first bits, and of the others.
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
    shape = (mean.shape[0], mean.shape[1])
    return Candidates(entries, mean.reshape(-1)[entries].double(), uniform, large.reshape(-1)[entries], shape)


def invert(
    candidates: Candidates,
    log_zero: Float64[Tensor, " entries"],
    first: Float64[Tensor, " entries"],
    slope: Float64[Tensor, " entries"],
) -> Float32[Tensor, " entries"]:
    """Walk up distributions until ``P(x > k) <= uniform``, and return the ``k``; large counts are left at zero.

    Parameters
    ----------
    candidates
        What to draw.
    log_zero
        ``log P(0)`` of every candidate.
    first, slope
        The others follow by ``P(k) = P(k - 1) (first + (k - 1) slope) / k``.
    """
    uniform = candidates.uniform.masked_fill(candidates.large, 1.0)
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

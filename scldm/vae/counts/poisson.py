"""Poisson counts."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scldm.data.batch import CellBatch
from scldm.seeds import child_rngs
from scldm.vae.counts.base import LOG_RATE, Heads, Likelihood, scaled_shares
from scldm.vae.counts.inversion import INVERSION_LIMIT, find_candidates, invert
from scldm.vae.counts.sparse import SparseCounts

__all__ = ["Poisson", "draw_poisson"]


class Poisson(Likelihood):
    """Poisson counts: the negative binomial's limit without overdispersion; there is nothing to learn here."""

    def _negative_log_likelihood(
        self, heads: Heads, batch: CellBatch, categories: Int[Tensor, " cells"] | None
    ) -> Float[Tensor, " cells"]:
        cell, log_rates = batch.cell_ids(), heads[LOG_RATE]
        log_totals = batch.library_size.log() - log_rates.logsumexp(dim=1)
        # Not log_totals[cell]: with several threads, the gradient of indexing with repeated indices adds up in random
        # order.
        log_expected = log_rates[cell, batch.gene_ids] + log_totals.index_select(0, cell)
        observed = batch.counts * log_expected - torch.lgamma(batch.counts + 1)
        # The expected counts of a cell sum to its library size.
        return batch.library_size - torch.zeros_like(batch.library_size).index_add(0, cell, observed)

    def sample_rates(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells genes"]:
        """See :meth:`Likelihood.sample_rates`: they are known, and nothing is drawn."""
        return scaled_shares(heads[LOG_RATE], library_size)

    @torch.no_grad()
    def sample(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> SparseCounts:
        """See :meth:`Likelihood.sample`."""
        return draw_poisson(scaled_shares(heads[LOG_RATE], library_size), rng)


@torch.no_grad()
def draw_poisson(
    mean: Float[Tensor, "cells genes"], rng: torch.Generator, inversion_limit: float = INVERSION_LIMIT
) -> SparseCounts:
    """Draw Poisson counts; see :func:`scldm.vae.counts.negative_binomial.draw_negative_binomial`."""
    limits = mean.new_full((mean.shape[1],), inversion_limit)
    coarse, fine, poissons = child_rngs(rng, 3)
    found = find_candidates(mean, limits, coarse, fine)
    counts = invert(found, -found.mean, found.mean, torch.zeros_like(found.mean))
    chosen = found.large.nonzero().squeeze(1)
    counts[chosen] = torch.poisson(found.mean[chosen].float(), generator=poissons)
    return found.with_counts(counts)

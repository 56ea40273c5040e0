"""Count likelihoods: how a decoded rate turns into UMI counts, and how surprising observed counts are under it.

A new likelihood is a subclass of :class:`Likelihood` entered in :data:`LIKELIHOODS`, whose key is then allowed in
``VAEConfig.likelihood``; nothing else has to change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scldm.data.batch import CellBatch
from scldm.vae.draws import SparseCounts, draw_negative_binomial, draw_poisson
from scldm.vae.kernels import negative_binomial_nll

__all__ = ["LIKELIHOODS", "Likelihood", "NegativeBinomial", "Poisson"]


class Likelihood(nn.Module, ABC):
    """Distribution of the counts of one cell given its expected counts.

    Every likelihood splits its log-probability in a part that every (cell, gene) pair has, observed or not, and a
    part that only entries with a positive count have. Cells are sparse, so the second is computed on CSR entries
    and no dense count matrix is ever made.
    """

    @abstractmethod
    def negative_log_likelihood(
        self,
        log_rates: Float[Tensor, "cells genes"],
        batch: CellBatch,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, " cells"]:
        """Negative log-likelihood of each cell in nats, summed over all genes.

        Parameters
        ----------
        log_rates
            Unnormalised: the softmax over all genes is each gene's share of the cell's expected counts.
        batch
            The observed cells.
        categories
            Codes of the attribute that the dispersion depends on, if it does; -1 is unlabelled.
        """

    @abstractmethod
    def sample(
        self,
        expected_counts: Float[Tensor, "cells genes"],
        generator: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> SparseCounts:
        """Draw UMI counts around ``expected_counts``; all randomness comes from ``generator``."""


class NegativeBinomial(Likelihood):
    """Negative binomial with mean mu and inverse dispersion theta: the variance is mu + mu^2 / theta.

    Parameters
    ----------
    n_genes
        Genes of the schema.
    n_categories
        0: one inverse dispersion per gene. Otherwise the number of categories of the attribute that
        dispersion may depend on: a per-(category, gene) offset is added on the log scale. An unlabelled
        cell (code -1) uses the gene's own value.

    Notes
    -----
    With the parametrisation of Lopez et al. 2018 (scVI, eq. 2), the log-probability of a count x is
    ``-theta log(1 + mu/theta) + [x > 0] (lgamma(x+theta) - lgamma(theta) - lgamma(x+1) + x log(mu/(mu+theta)))``.
    """

    #: log theta is kept in this range: below, a gene would be all bursts; above, float32 cannot tell it from Poisson.
    LOG_THETA_RANGE = (-6.0, 8.0)
    #: Where log theta starts: near Poisson, so that what a latent could explain is not first booked as noise.
    INITIAL_LOG_THETA = 2.3
    #: Adam moves every parameter by about the learning rate per step. Log theta spans several units and has to travel
    #: them in a short training: it is stored divided by this factor.
    STEP_FACTOR = 10.0

    def __init__(self, n_genes: int, n_categories: int = 0) -> None:
        super().__init__()
        self.scaled_log_theta = nn.Parameter(torch.full((n_genes,), self.INITIAL_LOG_THETA / self.STEP_FACTOR))
        self.scaled_offset = nn.Parameter(torch.zeros(n_categories, n_genes)) if n_categories else None

    def inverse_dispersion(self, categories: Int[Tensor, " cells"] | None = None) -> Float[Tensor, ...]:
        """Inverse dispersion theta, ``[genes]``, or ``[cells, genes]`` when it depends on the cell's category."""
        scaled: Tensor = self.scaled_log_theta
        if self.scaled_offset is not None and categories is not None:
            known = (categories >= 0).to(scaled.dtype)[:, None]
            scaled = scaled + known * nn.functional.embedding(categories.clamp_min(0), self.scaled_offset)
        return (self.STEP_FACTOR * scaled).clamp(*self.LOG_THETA_RANGE).exp()

    def negative_log_likelihood(
        self,
        log_rates: Float[Tensor, "cells genes"],
        batch: CellBatch,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, " cells"]:
        """See :meth:`Likelihood.negative_log_likelihood`; ``categories`` as in :meth:`inverse_dispersion`."""
        theta = self.inverse_dispersion(categories)
        return negative_binomial_nll(
            log_rates, theta, batch.counts, batch.gene_ids, batch.cell_ids(), batch.library_size
        )

    @torch.no_grad()
    def sample(
        self,
        expected_counts: Float[Tensor, "cells genes"],
        generator: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> SparseCounts:
        """See :meth:`Likelihood.sample`."""
        return draw_negative_binomial(expected_counts, self.inverse_dispersion(categories), generator)


class Poisson(Likelihood):
    """Poisson counts: the negative binomial's limit without overdispersion."""

    def __init__(self, n_genes: int, n_categories: int = 0) -> None:
        super().__init__()

    def negative_log_likelihood(
        self,
        log_rates: Float[Tensor, "cells genes"],
        batch: CellBatch,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, " cells"]:
        """See :meth:`Likelihood.negative_log_likelihood`; the expected counts of a cell sum to its library size."""
        cell = batch.cell_ids()
        log_totals = batch.library_size.log() - log_rates.logsumexp(dim=1)
        # Not log_totals[cell]: with several threads, the gradient of indexing with repeated indices adds up in random
        # order.
        log_expected = log_rates[cell, batch.gene_ids] + log_totals.index_select(0, cell)
        observed = batch.counts * log_expected - torch.lgamma(batch.counts + 1)
        return batch.library_size - torch.zeros_like(batch.library_size).index_add(0, cell, observed)

    @torch.no_grad()
    def sample(
        self,
        expected_counts: Float[Tensor, "cells genes"],
        generator: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> SparseCounts:
        """See :meth:`Likelihood.sample`."""
        return draw_poisson(expected_counts, generator)


LIKELIHOODS: dict[str, Callable[[int, int], Likelihood]] = {
    "negative_binomial": NegativeBinomial,
    "poisson": Poisson,
}

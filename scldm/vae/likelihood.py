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

__all__ = ["LIKELIHOODS", "Likelihood", "NegativeBinomial", "Poisson", "sample_negative_binomial"]


class Likelihood(nn.Module, ABC):
    """Distribution of the counts of one cell given its expected counts.

    Every likelihood splits its log-probability in a part that every (cell, gene) pair has, observed or not, and a
    part that only entries with a positive count have. Cells are sparse, so the second is computed on CSR entries
    and no dense count matrix is ever made.
    """

    @abstractmethod
    def negative_log_likelihood(
        self,
        log_fractions: Float[Tensor, "cells genes"],
        batch: CellBatch,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, " cells"]:
        """Negative log-likelihood of each cell in nats, summed over all genes.

        Parameters
        ----------
        log_fractions
            Log of each gene's share of the cell's expected counts; ``exp`` sums to one over genes.
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
    ) -> Float[Tensor, "cells genes"]:
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
        log_fractions: Float[Tensor, "cells genes"],
        batch: CellBatch,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, " cells"]:
        """See :meth:`Likelihood.negative_log_likelihood`; ``categories`` as in :meth:`inverse_dispersion`."""
        theta = self.inverse_dispersion(categories)
        expected = log_fractions.exp() * batch.library_size[:, None]
        every_gene = (theta * torch.log1p(expected / theta)).sum(dim=1)

        cell, gene, count = batch.cell_ids(), batch.gene_ids, batch.counts
        # Not theta[gene]: with several threads, the gradient of indexing with repeated indices adds up in random order.
        theta = theta.index_select(0, gene) if theta.ndim == 1 else theta[cell, gene]
        log_expected = log_fractions[cell, gene] + batch.library_size.log()[cell]
        observed = (
            torch.lgamma(count + theta)
            - torch.lgamma(theta)
            - torch.lgamma(count + 1)
            + count * (log_expected - torch.log(log_expected.exp() + theta))
        )
        return every_gene - torch.zeros_like(every_gene).index_add(0, cell, observed)

    @torch.no_grad()
    def sample(
        self,
        expected_counts: Float[Tensor, "cells genes"],
        generator: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells genes"]:
        """See :meth:`Likelihood.sample`."""
        return sample_negative_binomial(expected_counts, self.inverse_dispersion(categories), generator)


class Poisson(Likelihood):
    """Poisson counts: the negative binomial's limit without overdispersion."""

    def __init__(self, n_genes: int, n_categories: int = 0) -> None:
        super().__init__()

    def negative_log_likelihood(
        self,
        log_fractions: Float[Tensor, "cells genes"],
        batch: CellBatch,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, " cells"]:
        """See :meth:`Likelihood.negative_log_likelihood`; the expected counts of a cell sum to its library size."""
        cell = batch.cell_ids()
        log_expected = log_fractions[cell, batch.gene_ids] + batch.library_size.log()[cell]
        observed = batch.counts * log_expected - torch.lgamma(batch.counts + 1)
        return batch.library_size - torch.zeros_like(batch.library_size).index_add(0, cell, observed)

    @torch.no_grad()
    def sample(
        self,
        expected_counts: Float[Tensor, "cells genes"],
        generator: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells genes"]:
        """See :meth:`Likelihood.sample`."""
        return torch.poisson(expected_counts, generator=generator)


LIKELIHOODS: dict[str, Callable[[int, int], Likelihood]] = {
    "negative_binomial": NegativeBinomial,
    "poisson": Poisson,
}


@torch.no_grad()
def sample_negative_binomial(
    mean: Float[Tensor, "cells genes"],
    inverse_dispersion: Float[Tensor, ...],
    generator: torch.Generator,
    inversion_limit: float = 20.0,
    tail_limit: float = 100.0,
) -> Float[Tensor, "cells genes"]:
    """Draw negative-binomial counts, one uniform number per entry.

    Almost every entry of a cell is zero, so the distribution is inverted: a first comparison settles the zeros of
    the whole block at once, and only the survivors walk up their cumulative distribution. Entries with a mean
    above the limits, for which that walk is long, are drawn as a Gamma-mixed Poisson.

    Parameters
    ----------
    mean
        Expected UMI counts, zero or positive.
    inverse_dispersion
        Theta, broadcastable to ``mean``.
    generator
        The only source of randomness, on the device of ``mean``.
    inversion_limit, tail_limit
        Largest mean, and largest ratio of variance to mean, that are inverted.
    """
    theta = inverse_dispersion.expand_as(mean)
    uniform = torch.rand(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    # Survival P(x > 0) through expm1: 1 - p0 would lose the rare genes to rounding.
    survival = -torch.expm1(-theta * torch.log1p(mean / theta))
    counts = torch.zeros_like(mean)

    large = (mean > inversion_limit) | (1 + mean / theta > tail_limit)
    positive = (uniform < survival) & ~large
    index = positive.nonzero(as_tuple=True)
    mu, th = mean[index].double(), theta[index].double()
    # The uniform of a survivor is uniform on [0, survival): it is the tail probability that is left to walk down.
    # Float32 uniforms can be exactly 0, a tail that rounding would never let the walk reach; half a step of their grid
    # (2^-24) stands for it.
    tail = uniform[index].double().clamp_min(2.0**-25)
    success = mu / (mu + th)
    probability = torch.exp(-th * torch.log1p(mu / th))
    left = -torch.expm1(-th * torch.log1p(mu / th))
    drawn = torch.zeros_like(mu)
    step = 0
    walking = torch.arange(len(mu), device=mean.device)
    while len(walking):
        # Invariant: left = P(x > step); a tail below it means that the count is larger than step.
        above = tail[walking] < left[walking]
        walking = walking[above]
        step += 1
        drawn[walking] = step
        probability[walking] *= (step - 1 + th[walking]) / step * success[walking]
        left[walking] -= probability[walking]
    counts[index] = drawn.to(mean.dtype)

    index = large.nonzero(as_tuple=True)
    if len(index[0]):
        rate = torch._standard_gamma(theta[index].contiguous(), generator=generator) * mean[index] / theta[index]
        counts[index] = torch.poisson(rate, generator=generator)
    return counts

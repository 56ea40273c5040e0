"""Negative binomial counts, whose variance is mean + mean^2 / theta with an inverse dispersion theta for every gene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from scldm.data.batch import CellBatch
from scldm.seeds import child_rngs
from scldm.vae.counts.base import LOG_RATE, Heads, Likelihood, scaled_shares
from scldm.vae.counts.inversion import INVERSION_LIMIT, find_candidates, invert
from scldm.vae.counts.sparse import SparseCounts

__all__ = [
    "NegativeBinomial",
    "at_entries",
    "draw_negative_binomial",
    "gradients_of_entries",
    "log_probability_of_entries",
    "means",
    "negative_binomial_nll",
    "through_softmax_",
]

#: Ratios of variance to mean above this are not drawn by inversion: the walk up their distribution would be long.
TAIL_LIMIT = 100.0


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
        super().__init__(n_genes, n_categories)
        self.scaled_log_theta = nn.Parameter(torch.full((n_genes,), self.INITIAL_LOG_THETA / self.STEP_FACTOR))
        self.scaled_offset = nn.Parameter(torch.zeros(n_categories, n_genes)) if n_categories else None

    def inverse_dispersion(self, categories: Int[Tensor, " cells"] | None = None) -> Float[Tensor, ...]:
        """Inverse dispersion theta, ``[genes]``, or ``[cells, genes]`` when it depends on the cell's category."""
        scaled: Tensor = self.scaled_log_theta
        if self.scaled_offset is not None and categories is not None:
            known = (categories >= 0).to(scaled.dtype)[:, None]
            scaled = scaled + known * nn.functional.embedding(categories.clamp_min(0), self.scaled_offset)
        return (self.STEP_FACTOR * scaled).clamp(*self.LOG_THETA_RANGE).exp()

    def _negative_log_likelihood(
        self, heads: Heads, batch: CellBatch, categories: Int[Tensor, " cells"] | None
    ) -> Float[Tensor, " cells"]:
        return negative_binomial_nll(
            heads[LOG_RATE],
            self.inverse_dispersion(categories),
            batch.counts,
            batch.gene_ids,
            batch.cell_ids(),
            batch.library_size,
        )

    @torch.no_grad()
    def sample_rates(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells genes"]:
        """See :meth:`Likelihood.sample_rates`: gamma with shape theta around the mean."""
        (gammas,) = child_rngs(rng, 1)
        mean, theta = scaled_shares(heads[LOG_RATE], library_size), self.inverse_dispersion(categories)
        return torch._standard_gamma(theta.expand_as(mean).contiguous(), generator=gammas) * (mean / theta)

    @torch.no_grad()
    def sample(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> SparseCounts:
        """See :meth:`Likelihood.sample`; ``categories`` as in :meth:`inverse_dispersion`."""
        mean = scaled_shares(heads[LOG_RATE], library_size)
        return draw_negative_binomial(mean, self.inverse_dispersion(categories), rng)


def negative_binomial_nll(
    log_rates: Float[Tensor, "cells genes"],
    theta: Float[Tensor, "... genes"],
    counts: Float[Tensor, " entries"],
    genes: Int64[Tensor, " entries"],
    cells: Int64[Tensor, " entries"],
    library_size: Float[Tensor, " cells"],
) -> Float[Tensor, " cells"]:
    """Negative log-likelihood of sparse counts, in nats per cell.

    Their law is negative binomial with means ``library_size * softmax(log_rates)``. The gradient is written by hand:
    automatic differentiation would pass some ten times more often over arrays of cells x genes than their contents
    need. There is no second derivative.

    Parameters
    ----------
    log_rates
        Unnormalised log rates of all genes; -inf for a gene that has no part in the cell.
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


class _NegativeBinomialNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_rates: Tensor, theta: Tensor, counts: Tensor, genes: Tensor, cells: Tensor, library_size: Tensor
    ) -> Tensor:
        entries = cells * log_rates.shape[1] + genes
        mean, log_mean = means(log_rates, library_size, cells, entries)
        zero_terms = (mean / theta).log1p_()
        nll = zero_terms @ theta if theta.ndim == 1 else (zero_terms * theta).sum(1)
        observed = log_probability_of_entries(log_mean, theta, counts, genes, entries)
        nll = nll - torch.zeros_like(nll).index_add(0, cells, observed)
        ctx.save_for_backward(mean, zero_terms, theta, counts, genes, cells, entries, library_size)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mean, zero_terms, theta, counts, genes, cells, entries, library_size = ctx.saved_tensors
        slope = mean + theta
        torch.div(mean, slope, out=slope)  # mu / (mu + theta)
        of_mean, of_observed = gradients_of_entries(slope, theta, counts, genes, entries)
        of_observed *= gradient[cells]
        if theta.ndim == 1:
            of_theta = (gradient @ zero_terms - gradient @ slope).index_add_(0, genes, of_observed, alpha=-1)
        else:
            of_theta = (zero_terms - slope) * gradient[:, None]
            of_theta.view(-1)[entries] -= of_observed
        slope *= theta  # By the log mean: theta (mu - x) / (mu + theta).
        slope.view(-1)[entries] = of_mean
        through_softmax_(slope, mean, library_size)
        slope *= gradient[:, None]
        return slope, of_theta, None, None, None, None


def means(
    log_rates: Float[Tensor, "cells genes"],
    library_size: Float[Tensor, " cells"],
    cells: Int64[Tensor, " entries"],
    entries: Int64[Tensor, " entries"],
) -> tuple[Float[Tensor, "cells genes"], Float[Tensor, " entries"]]:
    """Means ``library_size * softmax(log_rates)`` of all genes, and the logarithms of those of some entries.

    The logarithms are finite where a mean is too small for a floating-point number.
    """
    shares = log_rates.softmax(dim=1)
    # The largest share is at least one over the number of genes: its logarithm is safe.
    log_normaliser = log_rates.amax(dim=1) - shares.amax(dim=1).log()
    log_mean = log_rates.reshape(-1)[entries] + (library_size.log() - log_normaliser)[cells]
    return shares.mul_(library_size[:, None]), log_mean


def log_probability_of_entries(
    log_mean: Float[Tensor, " entries"],
    theta: Float[Tensor, "... genes"],
    counts: Float[Tensor, " entries"],
    genes: Int64[Tensor, " entries"],
    entries: Int64[Tensor, " entries"],
) -> Float[Tensor, " entries"]:
    """Give what the log-probability of a positive count has more than that of a zero of the same law."""
    at, lgamma_at = _with_function(torch.lgamma, theta, genes, entries)
    return (
        torch.lgamma(counts + at)
        - lgamma_at
        - torch.lgamma(counts + 1)
        + counts * (log_mean - torch.log(log_mean.exp() + at))
    )


def gradients_of_entries(
    excess: Float[Tensor, "cells genes"],
    theta: Float[Tensor, "... genes"],
    counts: Float[Tensor, " entries"],
    genes: Int64[Tensor, " entries"],
    entries: Int64[Tensor, " entries"],
) -> tuple[Float[Tensor, " entries"], Float[Tensor, " entries"]]:
    """Give the gradients of positive counts.

    Parameters
    ----------
    excess
        ``mu / (mu + theta)`` of all genes.
    theta, counts, genes, entries
        As in :func:`log_probability_of_entries`.

    Returns
    -------
    of_mean
        The gradient of the whole negative log-probability by the log mean.
    of_theta
        The gradient of :func:`log_probability_of_entries` by theta.
    """
    at, digamma_at = _with_function(torch.digamma, theta, genes, entries)
    of_excess = excess.reshape(-1)[entries]
    rest = 1 - of_excess  # theta / (mu + theta)
    return at * of_excess - counts * rest, torch.digamma(counts + at) - digamma_at - counts * rest / at


def through_softmax_(
    of_log_mean: Float[Tensor, "cells genes"],
    mean: Float[Tensor, "cells genes"],
    library_size: Float[Tensor, " cells"],
) -> None:
    """Turn, in place, a gradient by the log means into one by the log rates of :func:`means`."""
    # A cell without counts has means of zero: whatever it is divided by, its gradient is zero.
    totals = library_size.clamp_min(torch.finfo(library_size.dtype).tiny)
    of_log_mean.addcmul_(mean, (of_log_mean.sum(1) / totals)[:, None], value=-1)


def at_entries(
    values: Float[Tensor, "... genes"], genes: Int64[Tensor, " entries"], entries: Int64[Tensor, " entries"]
) -> Float[Tensor, " entries"]:
    """Look up, for some entries, what is given per gene or per cell and gene."""
    return values.index_select(0, genes) if values.ndim == 1 else values.reshape(-1).index_select(0, entries)


def _with_function(
    function: Callable[[Tensor], Tensor], theta: Tensor, genes: Tensor, entries: Tensor
) -> tuple[Tensor, Tensor]:
    """Inverse dispersion of every entry, and a function of it, evaluated once per gene where that is enough."""
    at = at_entries(theta, genes, entries)
    return at, at_entries(function(theta), genes, entries) if theta.ndim == 1 else function(at)


@torch.no_grad()
def draw_negative_binomial(
    mean: Float[Tensor, "cells genes"],
    theta: Float[Tensor, "... genes"],
    rng: torch.Generator,
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
    rng
        The only source of randomness, on the device of ``mean``.
    """
    limits = (theta * (tail_limit - 1)).clamp_max(inversion_limit)
    coarse, fine, gammas, poissons = child_rngs(rng, 4)
    found = find_candidates(mean, limits, coarse, fine)
    at = at_entries(theta, found.entries % mean.shape[1], found.entries).double()
    success = found.mean / (found.mean + at)
    # P(x > 0) through expm1: 1 - P(x = 0) would lose the rare genes to rounding.
    log_zero = -at * torch.log1p(found.mean / at)
    counts = invert(found, log_zero, at * success, success)
    chosen = found.large.nonzero().squeeze(1)
    if len(chosen):
        gamma = torch._standard_gamma(at[chosen].float(), generator=gammas)
        counts[chosen] = torch.poisson(gamma * (found.mean[chosen] / at[chosen]).float(), generator=poissons)
    return found.with_counts(counts)

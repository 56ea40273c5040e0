"""Zero-inflated negative binomial counts: behind a gate that is closed with some probability, and gives a zero then."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from scldm.data.batch import CellBatch
from scldm.seeds import child_rngs
from scldm.vae.counts.base import LOG_RATE, Heads, scaled_shares
from scldm.vae.counts.negative_binomial import (
    NegativeBinomial,
    at_entries,
    draw_negative_binomial,
    gradients_of_entries,
    log_probability_of_entries,
    means,
    through_softmax_,
)
from scldm.vae.counts.sparse import SparseCounts

__all__ = [
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedNegativeBinomialByGene",
    "zero_inflated_negative_binomial_nll",
]

GATE_LOGIT = "gate_logit"


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Zero with probability pi, negative binomial otherwise; pi depends on the cell and the gene.

    The logit of pi is a parameter of the gene plus what the decoder says of the gene in this cell. The library size of
    a cell is shared out among the negative binomial parts: of ``library_size * share`` a gene has ``1 - pi`` on
    average, so that the counts that are drawn for a cell add up to less than its library size.

    Parameters
    ----------
    n_genes, n_categories
        As in :class:`~scldm.vae.counts.negative_binomial.NegativeBinomial`.
    """

    heads: ClassVar[tuple[str, ...]] = (LOG_RATE, GATE_LOGIT)

    #: Where the logit of pi starts: nearly all zeros are first explained by small rates.
    INITIAL_GATE_LOGIT = -4.0

    def __init__(self, n_genes: int, n_categories: int = 0) -> None:
        super().__init__(n_genes, n_categories)
        # From its start on, and divided by the factor, for the same reason as the dispersion.
        self.scaled_gate_logit = nn.Parameter(torch.zeros(n_genes))

    def gate_logit(self, heads: Heads) -> Float[Tensor, "... genes"]:
        """Logit of the probability pi that the gate is closed, ``[genes]`` or ``[cells, genes]``."""
        of_gene = self.INITIAL_GATE_LOGIT + self.STEP_FACTOR * self.scaled_gate_logit
        return of_gene + heads[GATE_LOGIT] if GATE_LOGIT in self.heads else of_gene

    def _negative_log_likelihood(
        self, heads: Heads, batch: CellBatch, categories: Int[Tensor, " cells"] | None
    ) -> Float[Tensor, " cells"]:
        return zero_inflated_negative_binomial_nll(
            heads[LOG_RATE],
            self.inverse_dispersion(categories),
            self.gate_logit(heads),
            batch.counts,
            batch.gene_ids,
            batch.cell_ids(),
            batch.library_size,
        )

    def expected_counts(self, heads: Heads, library_size: Float[Tensor, " cells"]) -> Float[Tensor, "cells genes"]:
        """Mean of the counts that are drawn, in UMI: ``(1 - pi) * library_size * share``."""
        return super().expected_counts(heads, library_size) * torch.sigmoid(-self.gate_logit(heads))

    @torch.no_grad()
    def sample_rates(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells genes"]:
        """See :meth:`Likelihood.sample_rates`: those of a negative binomial, and zero behind a closed gate."""
        (gates,) = child_rngs(rng, 1)
        rates = super().sample_rates(heads, library_size, rng, categories)
        closed = torch.sigmoid(self.gate_logit(heads))
        return rates * (torch.rand(rates.shape, generator=gates, device=rates.device) >= closed)

    @torch.no_grad()
    def sample(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> SparseCounts:
        """See :meth:`Likelihood.sample`: negative binomial counts, of which those behind a closed gate are dropped."""
        (gates,) = child_rngs(rng, 1)
        mean = scaled_shares(heads[LOG_RATE], library_size)
        drawn = draw_negative_binomial(mean, self.inverse_dispersion(categories), rng)
        # Only of positive counts does it matter whether their gate is open.
        logit = self.gate_logit(heads)
        closed = torch.sigmoid(at_entries(logit, drawn.entries % mean.shape[1], drawn.entries))
        return drawn.where(torch.rand(closed.shape, generator=gates, device=closed.device) >= closed)


class ZeroInflatedNegativeBinomialByGene(ZeroInflatedNegativeBinomial):
    """Zero with probability pi, negative binomial otherwise; pi depends on the gene alone."""

    heads = (LOG_RATE,)


def zero_inflated_negative_binomial_nll(
    log_rates: Float[Tensor, "cells genes"],
    theta: Float[Tensor, "... genes"],
    gate_logit: Float[Tensor, "... genes"],
    counts: Float[Tensor, " entries"],
    genes: Int64[Tensor, " entries"],
    cells: Int64[Tensor, " entries"],
    library_size: Float[Tensor, " cells"],
) -> Float[Tensor, " cells"]:
    """Negative log-likelihood of sparse counts, in nats per cell, with a gradient written by hand.

    Parameters
    ----------
    gate_logit
        Logits g of the probability pi of a closed gate, per gene or per cell and gene.
    log_rates, theta, counts, genes, cells, library_size
        As in :func:`~scldm.vae.counts.negative_binomial.negative_binomial_nll`.

    Notes
    -----
    With ``t = theta log(1 + mu / theta)``, a zero has the log-probability

    ``log(pi + (1 - pi) exp(-t)) = min(max(g, -t), 0) + log(1 + exp(-|g + t|)) - log(1 + exp(-|g|))``

    whose terms are of a safe size, and which is 0 where the mean is. A positive count has ``log(1 - pi)`` and the
    log-probability of the negative binomial.
    """
    return _ZeroInflatedNegativeBinomialNLL.apply(log_rates, theta, gate_logit, counts, genes, cells, library_size)


class _ZeroInflatedNegativeBinomialNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_rates: Tensor,
        theta: Tensor,
        gate: Tensor,
        counts: Tensor,
        genes: Tensor,
        cells: Tensor,
        library_size: Tensor,
    ) -> Tensor:
        entries = cells * log_rates.shape[1] + genes
        mean, log_mean = means(log_rates, library_size, cells, entries)
        zero_terms = (mean / theta).log1p_()
        minus_t = (zero_terms * theta).neg_()
        of_entries = log_probability_of_entries(log_mean, theta, counts, genes, entries)
        of_entries += minus_t.view(-1)[entries] + logsigmoid(-at_entries(gate, genes, entries))
        # log(1 + a) - log(1 + b) with a = exp(-|g + t|) and b = exp(-|g|), by one logarithm.
        log_probability, b = (gate - minus_t).abs_().neg_().exp_(), gate.abs().neg_().exp_()
        log_probability.sub_(b).div_(b.add_(1)).log1p_()
        absent = minus_t == 0
        log_probability += torch.maximum(minus_t, gate, out=minus_t).clamp_max_(0)
        # To the bit, and not up to how exp rounds: a gene that was not measured must not be seen through its gate.
        log_probability.masked_fill_(absent, 0)
        log_probability.view(-1)[entries] = of_entries
        ctx.save_for_backward(mean, zero_terms, theta, gate, counts, genes, cells, entries, library_size)
        return -log_probability.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mean, zero_terms, theta, gate, counts, genes, cells, entries, library_size = ctx.saved_tensors
        t = zero_terms * theta
        # The probability that a zero is from a closed gate.
        closed = (t + gate).sigmoid_()
        # By the logit, a zero has sigmoid(g) - sigmoid(g + t); as a product, that is 0 exactly where the mean is.
        of_gate = t.neg_().expm1_().mul_(closed).mul_(torch.sigmoid(-gate))
        of_gate.view(-1)[entries] = torch.sigmoid(at_entries(gate, genes, entries))
        of_gate = gradient @ of_gate if gate.ndim == 1 else of_gate.mul_(gradient[:, None])
        from_open = closed.neg_().add_(1)
        from_open.view(-1)[entries] = 1

        slope = mean + theta
        torch.div(mean, slope, out=slope)  # mu / (mu + theta)
        of_mean, of_observed = gradients_of_entries(slope, theta, counts, genes, entries)
        of_observed *= gradient[cells]
        of_theta = (zero_terms - slope).mul_(from_open)
        if theta.ndim == 1:
            of_theta = (gradient @ of_theta).index_add_(0, genes, of_observed, alpha=-1)
        else:
            of_theta *= gradient[:, None]
            of_theta.view(-1)[entries] -= of_observed
        slope.mul_(theta).mul_(from_open)
        slope.view(-1)[entries] = of_mean
        through_softmax_(slope, mean, library_size)
        slope *= gradient[:, None]
        return slope, of_theta, of_gate, None, None, None, None

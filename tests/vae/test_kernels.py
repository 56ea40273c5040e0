"""Values against the plain formula, gradients against finite differences and against automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scldm.data.batch import CellBatch
from scldm.vae.kernels import fold_read_outs, negative_binomial_nll, weighted_bags

N_CELLS, N_GENES = 5, 9


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture
def batch() -> CellBatch:
    """Cells of which one is empty, one expresses all genes, and one gene is expressed by none."""
    counts = np.random.default_rng(0).poisson(0.8, (N_CELLS, N_GENES))
    counts[1], counts[3], counts[3, 0] = 0, 2, 500
    counts[:, 4] = 0
    return CellBatch.from_csr(sp.csr_matrix(counts))


def test_bags_are_the_product_of_the_weights_and_each_table(batch):
    tables = randn(N_GENES, 4), randn(N_GENES, 3, seed=1)
    weights = torch.rand(len(batch.counts), dtype=torch.float64)

    def bags(*tables):
        return weighted_bags(batch.gene_ids, batch.cell_ids(), batch.offsets, weights, *tables)

    dense = torch.zeros(N_CELLS, N_GENES, dtype=torch.float64)
    dense[batch.cell_ids(), batch.gene_ids] = weights
    for bag, table in zip(bags(*tables), tables, strict=True):
        torch.testing.assert_close(bag, dense @ table)
    assert torch.autograd.gradcheck(bags, tables)


def test_a_gene_that_no_cell_expresses_gets_no_gradient(batch):
    table = randn(N_GENES, 4).detach().float().requires_grad_()
    (bag,) = weighted_bags(batch.gene_ids, batch.cell_ids(), batch.offsets, torch.rand(len(batch.counts)), table)
    (gradient,) = torch.autograd.grad(bag.square().sum(), table)
    absent = ~torch.isin(torch.arange(N_GENES), batch.gene_ids)
    assert absent.any()
    assert torch.equal((gradient == 0).all(dim=1), absent)


def test_folded_read_outs_are_the_outer_product_of_every_gene():
    weights, read_outs = randn(3, 2, N_GENES), randn(2, 4, N_GENES, seed=1)
    folded = fold_read_outs(weights, read_outs)
    expected = torch.einsum("mhg,hcg->mhcg", weights, read_outs).flatten(0, 2)
    torch.testing.assert_close(folded, expected)
    assert torch.autograd.gradcheck(fold_read_outs, (weights, read_outs))


@pytest.mark.parametrize("per_cell", [False, True])
def test_negative_binomial_has_the_values_and_gradients_of_the_plain_formula(batch, per_cell):
    log_rates = randn(N_CELLS, N_GENES)
    theta = randn(*((N_CELLS, N_GENES) if per_cell else (N_GENES,)), seed=1).detach().exp().requires_grad_()
    counts, library_size = batch.counts.double(), batch.library_size.double()

    def nll(log_rates, theta):
        return negative_binomial_nll(log_rates, theta, counts, batch.gene_ids, batch.cell_ids(), library_size)

    # The empty cell: its law is that of a library size of next to nothing.
    mean = log_rates.softmax(1) * library_size.clamp_min(1e-30)[:, None]
    law = torch.distributions.NegativeBinomial(theta.expand_as(mean), logits=mean.log() - theta.log())
    expected = -law.log_prob(batch.dense(N_GENES).double()).sum(1)
    torch.testing.assert_close(nll(log_rates, theta), expected)
    # Cells count differently, so that a gradient that is only right for their mean is found out.
    weights = torch.linspace(0.5, 2, N_CELLS, dtype=torch.float64)
    ours = torch.autograd.grad(weights @ nll(log_rates, theta), (log_rates, theta))
    plain = torch.autograd.grad(weights @ expected, (log_rates, theta))
    torch.testing.assert_close(ours, plain)
    assert torch.autograd.gradcheck(nll, (log_rates, theta))


def test_negative_binomial_is_finite_where_shares_vanish(batch):
    """A gene whose share is zero in float32 may still be expressed."""
    log_rates = torch.zeros(N_CELLS, N_GENES)
    log_rates[:, 0] = 300.0
    log_rates.requires_grad_()
    theta = torch.ones(N_GENES, requires_grad=True)
    nll = negative_binomial_nll(log_rates, theta, batch.counts, batch.gene_ids, batch.cell_ids(), batch.library_size)
    nll.sum().backward()
    assert nll.isfinite().all()
    assert nll.max() > 299
    assert log_rates.grad.isfinite().all()
    assert theta.grad.isfinite().all()

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats

from scldm.data.batch import CellBatch
from scldm.vae.counts.negative_binomial import NegativeBinomial, negative_binomial_nll
from scldm.vae.counts.poisson import Poisson

N_GENES = 30


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def cells() -> tuple[np.ndarray, CellBatch, torch.Tensor]:
    """Counts from 0 to thousands, as a matrix and as a batch, with log fractions."""
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.3, 20.0, (6, N_GENES)))
    counts[0, :3] = (1, 40_000, 0)
    counts[5] = 0
    counts[5, 2] = 1
    batch = CellBatch.from_csr(sp.csr_matrix(counts))
    return counts, batch, (2 * torch.randn(6, N_GENES, generator=generator())).log_softmax(-1)


def set_log_theta(likelihood: NegativeBinomial, log_theta: torch.Tensor, offset: torch.Tensor | None = None) -> None:
    """Set log inverse dispersions; they are stored divided by a factor."""
    with torch.no_grad():
        likelihood.scaled_log_theta.copy_(log_theta / likelihood.STEP_FACTOR)
        if offset is not None:
            likelihood.scaled_offset.copy_(offset / likelihood.STEP_FACTOR)


def with_theta(
    likelihood: NegativeBinomial, low: float = -3.0, high: float = 6.0
) -> tuple[NegativeBinomial, np.ndarray]:
    log_theta = torch.linspace(low, high, N_GENES)
    set_log_theta(likelihood, log_theta)
    return likelihood, log_theta.double().exp().numpy()


def expected_counts(batch: CellBatch, log_rates: torch.Tensor) -> np.ndarray:
    return (log_rates.double().exp() * batch.library_size[:, None].double()).numpy()


def scipy_nb(theta: np.ndarray, mean: np.ndarray):
    return stats.nbinom(theta, theta / (theta + mean))


# Log-probabilities -----------------------------------------------------------------------------------------------


def test_negative_binomial_is_the_dense_sum_of_scipy(cells):
    counts, batch, log_rates = cells
    likelihood, theta = with_theta(NegativeBinomial(N_GENES))
    expected = -scipy_nb(theta, expected_counts(batch, log_rates)).logpmf(counts).sum(1)
    ours = likelihood.negative_log_likelihood({"log_rate": log_rates}, batch).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-5)


def test_negative_binomial_is_the_dense_sum_of_torch(cells):
    counts, batch, log_rates = cells
    likelihood, numbers = with_theta(NegativeBinomial(N_GENES))
    theta = torch.from_numpy(numbers)
    log_mean = log_rates.double() + batch.library_size.double().log()[:, None]
    reference = torch.distributions.NegativeBinomial(theta, logits=log_mean - theta.log())
    expected = -reference.log_prob(torch.from_numpy(counts).double()).sum(1)
    ours = likelihood.negative_log_likelihood({"log_rate": log_rates}, batch)
    torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=0)


def test_large_inverse_dispersion_is_nearly_poisson():
    counts = np.random.default_rng(0).poisson(2.0, (4, N_GENES))
    batch = CellBatch.from_csr(sp.csr_matrix(counts))
    log_rates = torch.zeros(4, N_GENES).log_softmax(-1)
    negative_binomial, _ = with_theta(NegativeBinomial(N_GENES), 20.0, 20.0)
    assert negative_binomial.inverse_dispersion().max().item() == pytest.approx(np.exp(8.0), rel=1e-5)
    ours = negative_binomial.negative_log_likelihood({"log_rate": log_rates}, batch)
    torch.testing.assert_close(
        ours, Poisson(N_GENES).negative_log_likelihood({"log_rate": log_rates}, batch), rtol=5e-3, atol=0
    )


def test_dispersion_depends_on_the_category_and_unlabelled_cells_use_the_gene(cells):
    counts, batch, log_rates = cells
    likelihood, log_theta = NegativeBinomial(N_GENES, n_categories=2), torch.linspace(-3, 6, N_GENES)
    offset = torch.stack([torch.full((N_GENES,), 0.7), torch.linspace(-2, 2, N_GENES)])
    set_log_theta(likelihood, log_theta, offset)
    codes = torch.tensor([0, 1, -1, 1, 0, -1])
    theta = (log_theta + torch.cat([offset, torch.zeros(1, N_GENES)])[codes]).double()
    theta = np.exp(np.clip(theta.numpy(), *NegativeBinomial.LOG_THETA_RANGE))
    np.testing.assert_allclose(likelihood.inverse_dispersion(codes).detach(), theta, rtol=1e-5)
    expected = -scipy_nb(theta, expected_counts(batch, log_rates)).logpmf(counts).sum(1)
    ours = likelihood.negative_log_likelihood({"log_rate": log_rates}, batch, codes).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-5)


def test_gradient_is_that_of_the_dense_sum_and_finite_everywhere(cells):
    counts, batch, log_rates = cells
    likelihood, theta = with_theta(NegativeBinomial(N_GENES), -5.5, 7.5)
    log_rates = log_rates.clone().requires_grad_()
    likelihood.negative_log_likelihood({"log_rate": log_rates}, batch).sum().backward()

    dense_log_rates = log_rates.detach().double().requires_grad_()
    log_theta = torch.from_numpy(theta).log().requires_grad_()
    log_mean = dense_log_rates.log_softmax(-1) + batch.library_size.double().log()[:, None]
    reference = torch.distributions.NegativeBinomial(log_theta.exp(), logits=log_mean - log_theta)
    (-reference.log_prob(torch.from_numpy(counts).double()).sum()).backward()
    torch.testing.assert_close(log_rates.grad.double(), dense_log_rates.grad, rtol=1e-3, atol=1e-3)
    ours = likelihood.scaled_log_theta.grad.double() / likelihood.STEP_FACTOR
    torch.testing.assert_close(ours, log_theta.grad, rtol=2e-3, atol=5e-3)


# The kernel: values against the plain formula, gradients against finite differences and automatic differentiation -----

N_CELLS, FEW_GENES = 5, 9


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).requires_grad_()


@pytest.fixture
def small_batch() -> CellBatch:
    """Cells of which one is empty, one expresses all genes, and one gene is expressed by none."""
    counts = np.random.default_rng(0).poisson(0.8, (N_CELLS, FEW_GENES))
    counts[1], counts[3], counts[3, 0] = 0, 2, 500
    counts[:, 4] = 0
    return CellBatch.from_csr(sp.csr_matrix(counts))


@pytest.mark.parametrize("per_cell", [False, True])
def test_negative_binomial_has_the_values_and_gradients_of_the_plain_formula(small_batch, per_cell):
    log_rates = randn(N_CELLS, FEW_GENES)
    theta = randn(*((N_CELLS, FEW_GENES) if per_cell else (FEW_GENES,)), seed=1).detach().exp().requires_grad_()
    counts, library_size = small_batch.counts.double(), small_batch.library_size.double()

    def nll(log_rates, theta):
        return negative_binomial_nll(
            log_rates, theta, counts, small_batch.gene_ids, small_batch.cell_ids(), library_size
        )

    # The empty cell: its law is that of a library size of next to nothing.
    mean = log_rates.softmax(1) * library_size.clamp_min(1e-30)[:, None]
    law = torch.distributions.NegativeBinomial(theta.expand_as(mean), logits=mean.log() - theta.log())
    expected = -law.log_prob(small_batch.dense(FEW_GENES).double()).sum(1)
    torch.testing.assert_close(nll(log_rates, theta), expected)
    # Cells count differently, so that a gradient that is only right for their mean is found out.
    weights = torch.linspace(0.5, 2, N_CELLS, dtype=torch.float64)
    ours = torch.autograd.grad(weights @ nll(log_rates, theta), (log_rates, theta))
    plain = torch.autograd.grad(weights @ expected, (log_rates, theta))
    torch.testing.assert_close(ours, plain)
    assert torch.autograd.gradcheck(nll, (log_rates, theta))


def test_negative_binomial_is_finite_where_shares_vanish(small_batch):
    """A gene whose share is zero in float32 may still be expressed."""
    log_rates = torch.zeros(N_CELLS, FEW_GENES)
    log_rates[:, 0] = 300.0
    log_rates.requires_grad_()
    theta = torch.ones(FEW_GENES, requires_grad=True)
    nll = negative_binomial_nll(
        log_rates, theta, small_batch.counts, small_batch.gene_ids, small_batch.cell_ids(), small_batch.library_size
    )
    nll.sum().backward()
    assert nll.isfinite().all()
    assert nll.max() > 299
    assert log_rates.grad.isfinite().all()
    assert theta.grad.isfinite().all()

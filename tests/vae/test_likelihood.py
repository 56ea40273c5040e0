from __future__ import annotations

import signal
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy import stats

from scldm.data.batch import CellBatch
from scldm.vae import likelihood as module
from scldm.vae.likelihood import LIKELIHOODS, NegativeBinomial, Poisson, sample_negative_binomial

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


def expected_counts(batch: CellBatch, log_fractions: torch.Tensor) -> np.ndarray:
    return (log_fractions.double().exp() * batch.library_size[:, None].double()).numpy()


def scipy_nb(theta: np.ndarray, mean: np.ndarray):
    return stats.nbinom(theta, theta / (theta + mean))


# Log-probabilities -----------------------------------------------------------------------------------------------


def test_negative_binomial_is_the_dense_sum_of_scipy(cells):
    counts, batch, log_fractions = cells
    likelihood, theta = with_theta(NegativeBinomial(N_GENES))
    expected = -scipy_nb(theta, expected_counts(batch, log_fractions)).logpmf(counts).sum(1)
    ours = likelihood.negative_log_likelihood(log_fractions, batch).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-5)


def test_negative_binomial_is_the_dense_sum_of_torch(cells):
    counts, batch, log_fractions = cells
    likelihood, numbers = with_theta(NegativeBinomial(N_GENES))
    theta = torch.from_numpy(numbers)
    log_mean = log_fractions.double() + batch.library_size.double().log()[:, None]
    reference = torch.distributions.NegativeBinomial(theta, logits=log_mean - theta.log())
    expected = -reference.log_prob(torch.from_numpy(counts).double()).sum(1)
    ours = likelihood.negative_log_likelihood(log_fractions, batch)
    torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=0)


def test_poisson_is_the_dense_sum_of_scipy(cells):
    counts, batch, log_fractions = cells
    expected = -stats.poisson(expected_counts(batch, log_fractions)).logpmf(counts).sum(1)
    ours = Poisson(N_GENES).negative_log_likelihood(log_fractions, batch).numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-5)


def test_large_inverse_dispersion_is_nearly_poisson():
    counts = np.random.default_rng(0).poisson(2.0, (4, N_GENES))
    batch = CellBatch.from_csr(sp.csr_matrix(counts))
    log_fractions = torch.zeros(4, N_GENES).log_softmax(-1)
    negative_binomial, _ = with_theta(NegativeBinomial(N_GENES), 20.0, 20.0)
    assert negative_binomial.inverse_dispersion().max().item() == pytest.approx(np.exp(8.0), rel=1e-5)
    ours = negative_binomial.negative_log_likelihood(log_fractions, batch)
    torch.testing.assert_close(ours, Poisson(N_GENES).negative_log_likelihood(log_fractions, batch), rtol=5e-3, atol=0)


def test_dispersion_depends_on_the_category_and_unlabelled_cells_use_the_gene(cells):
    counts, batch, log_fractions = cells
    likelihood, log_theta = NegativeBinomial(N_GENES, n_categories=2), torch.linspace(-3, 6, N_GENES)
    offset = torch.stack([torch.full((N_GENES,), 0.7), torch.linspace(-2, 2, N_GENES)])
    set_log_theta(likelihood, log_theta, offset)
    codes = torch.tensor([0, 1, -1, 1, 0, -1])
    theta = (log_theta + torch.cat([offset, torch.zeros(1, N_GENES)])[codes]).double()
    theta = np.exp(np.clip(theta.numpy(), *NegativeBinomial.LOG_THETA_RANGE))
    np.testing.assert_allclose(likelihood.inverse_dispersion(codes).detach(), theta, rtol=1e-5)
    expected = -scipy_nb(theta, expected_counts(batch, log_fractions)).logpmf(counts).sum(1)
    ours = likelihood.negative_log_likelihood(log_fractions, batch, codes).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-5)


def test_gradient_is_that_of_the_dense_sum_and_finite_everywhere(cells):
    counts, batch, log_fractions = cells
    likelihood, theta = with_theta(NegativeBinomial(N_GENES), -5.5, 7.5)
    log_fractions = log_fractions.clone().requires_grad_()
    likelihood.negative_log_likelihood(log_fractions, batch).sum().backward()

    dense_log_fractions = log_fractions.detach().double().requires_grad_()
    log_theta = torch.from_numpy(theta).log().requires_grad_()
    log_mean = dense_log_fractions + batch.library_size.double().log()[:, None]
    reference = torch.distributions.NegativeBinomial(log_theta.exp(), logits=log_mean - log_theta)
    (-reference.log_prob(torch.from_numpy(counts).double()).sum()).backward()
    torch.testing.assert_close(log_fractions.grad.double(), dense_log_fractions.grad, rtol=1e-3, atol=1e-3)
    ours = likelihood.scaled_log_theta.grad.double() / likelihood.STEP_FACTOR
    torch.testing.assert_close(ours, log_theta.grad, rtol=2e-3, atol=5e-3)


def test_every_likelihood_can_be_chosen_by_name():
    assert set(LIKELIHOODS) == {"negative_binomial", "poisson"}
    assert isinstance(LIKELIHOODS["poisson"](5, 0), Poisson)


# Sampling --------------------------------------------------------------------------------------------------------

N_DRAWS = 40_000
# Mean and inverse dispersion: rare, ordinary, bursty (most of the mass in few draws), abundant; both ways of drawing.
MOMENTS = [
    (0.002, 1.0), (0.3, 0.01), (0.7, 5.0), (3.0, 0.5), (15.0, 0.2), (19.9, 2000.0), (20.1, 2000.0), (19.0, 0.05),
    (300.0, 3.0), (5000.0, 0.5), (50.0, 0.01),
]  # fmt: skip


@pytest.mark.parametrize(("mean", "theta"), MOMENTS)
def test_samples_have_the_moments_of_the_negative_binomial(mean, theta):
    draws = sample_negative_binomial(torch.full((N_DRAWS, 1), mean), torch.tensor([theta]), generator(1))
    x = draws.double().numpy()[:, 0]
    assert (x == np.round(x)).all()
    assert (x >= 0).all()
    law = scipy_nb(np.array(theta), np.array(mean))
    m, v, _, kurtosis = (float(value) for value in law.stats("mvsk"))
    # Five standard errors of each estimate.
    assert abs(x.mean() - m) < 5 * np.sqrt(v / N_DRAWS)
    assert abs(x.var() - v) < 5 * v * np.sqrt((kurtosis + 2) / N_DRAWS)
    zero = law.pmf(0)
    assert abs((x == 0).mean() - zero) < 5 * np.sqrt(max(zero * (1 - zero), 1 / N_DRAWS) / N_DRAWS)


@pytest.mark.parametrize(("mean", "theta"), [(3.0, 0.5), (0.7, 5.0), (15.0, 0.2), (19.0, 30.0)])
def test_inversion_and_gamma_poisson_draw_from_the_same_law(mean, theta):
    law = scipy_nb(np.array(theta), np.array(mean))
    edges = np.unique(np.r_[-1, law.ppf(np.linspace(0.05, 0.95, 10)), np.inf])
    expected = np.diff(law.cdf(edges)) * N_DRAWS
    for limits in ({"inversion_limit": 1e9, "tail_limit": 1e9}, {"inversion_limit": 0.0}):
        draws = sample_negative_binomial(
            torch.full((N_DRAWS, 1), mean), torch.tensor([theta]), generator(2), **limits
        ).numpy()[:, 0]
        observed = np.array([((draws > a) & (draws <= b)).sum() for a, b in pairwise(edges)])
        assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_samples_of_a_block_keep_to_their_own_means():
    mean = torch.tensor([[0.0, 0.5, 10.0, 1000.0], [1000.0, 10.0, 0.5, 0.0]])
    theta = torch.tensor([1.0, 1.0, 10.0, 10.0])
    draws = torch.stack([sample_negative_binomial(mean, theta, generator(seed)) for seed in range(500)])
    error = (mean + mean**2 / theta).sqrt() / 500**0.5
    assert ((draws.mean(0) - mean).abs() <= 5 * error).all()
    assert (draws[:, mean == 0] == 0).all()


def test_cells_are_drawn_independently():
    draws = sample_negative_binomial(torch.full((2000, 20), 2.0), torch.ones(20), generator()).numpy()
    correlation = np.corrcoef(draws.T)
    assert np.abs(correlation - np.eye(20)).max() < 5 / np.sqrt(2000)


def test_uniform_of_zero_gives_a_finite_count(monkeypatch):
    """One float32 uniform in 2^24 is exactly zero: the walk up the distribution must end there too."""
    monkeypatch.setattr(module.torch, "rand", lambda shape, **_: torch.zeros(shape))

    def stuck(*_):
        raise AssertionError("the walk does not end")

    previous = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(20)
    try:
        mean = torch.tensor([[0.00165, 0.5, 3.0, 20.0, 0.0]])
        for theta in (0.41, 1.0, 3.3, 2000.0):
            counts = sample_negative_binomial(mean, torch.full((5,), theta), generator())
            # The tail that such a draw stands for lies between 2^-26 and 2^-24.
            law = scipy_nb(np.array(theta), mean[0, :4].numpy())
            assert (counts[0, :4].numpy() >= law.isf(2.0**-24)).all()
            assert (counts[0, :4].numpy() <= law.isf(2.0**-26)).all()
            assert counts[0, 4] == 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("likelihood", [Poisson(4), NegativeBinomial(4)])
def test_sampling_is_reproduced_by_its_generator_alone(likelihood):
    mean = torch.tensor([[0.1, 5.0, 40.0, 3000.0]]).repeat(50, 1)
    first = likelihood.sample(mean, generator(3))
    torch.rand(10)
    assert torch.equal(first, likelihood.sample(mean, generator(3)))
    assert not torch.equal(first, likelihood.sample(mean, generator(4)))


def test_poisson_samples_have_the_moments_of_the_poisson():
    draws = Poisson(3).sample(torch.tensor([[0.05, 4.0, 900.0]]).repeat(N_DRAWS, 1), generator()).double()
    mean = torch.tensor([0.05, 4.0, 900.0]).double()
    assert ((draws.mean(0) - mean).abs() < 5 * (mean / N_DRAWS).sqrt()).all()
    assert ((draws.var(0) - mean).abs() < 5 * mean * ((2 + 1 / mean) / N_DRAWS).sqrt()).all()


def test_samples_use_the_dispersion_of_the_category():
    likelihood = NegativeBinomial(1, n_categories=2)
    set_log_theta(likelihood, torch.zeros(1), torch.tensor([[-2.0], [3.0]]))
    for code, log_theta in ((0, -2.0), (1, 3.0), (-1, 0.0)):
        draws = likelihood.sample(torch.full((N_DRAWS, 1), 4.0), generator(code + 5), torch.full((N_DRAWS,), code))
        zero = stats.nbinom(np.exp(log_theta), np.exp(log_theta) / (np.exp(log_theta) + 4.0)).pmf(0)
        assert (draws == 0).double().mean().item() == pytest.approx(zero, abs=5 * np.sqrt(zero * (1 - zero) / N_DRAWS))

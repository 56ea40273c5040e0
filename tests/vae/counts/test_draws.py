from __future__ import annotations

import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from scldm.vae.counts import inversion
from scldm.vae.counts.negative_binomial import NegativeBinomial, draw_negative_binomial
from scldm.vae.counts.poisson import Poisson, draw_poisson
from scldm.vae.counts.sparse import SparseCounts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dense(drawn: SparseCounts) -> torch.Tensor:
    return torch.from_numpy(drawn.to_csr().toarray())


def scipy_nb(theta: np.ndarray, mean: np.ndarray):
    return stats.nbinom(theta, theta / (theta + mean))


N_DRAWS = 40_000
# Mean and inverse dispersion: rare, ordinary, bursty (most of the mass in few draws), abundant; both ways of drawing.
MOMENTS = [
    (0.002, 1.0), (0.3, 0.01), (0.7, 5.0), (3.0, 0.5), (15.0, 0.2), (19.9, 2000.0), (20.1, 2000.0), (19.0, 0.05),
    (300.0, 3.0), (5000.0, 0.5), (50.0, 0.01),
]  # fmt: skip


@pytest.mark.parametrize(("mean", "theta"), MOMENTS)
def test_samples_have_the_moments_of_the_negative_binomial(mean, theta):
    draws = draw_negative_binomial(torch.full((N_DRAWS, 1), mean), torch.tensor([theta]), generator(1))
    x = dense(draws).double().numpy()[:, 0]
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
        drawn = draw_negative_binomial(torch.full((N_DRAWS, 1), mean), torch.tensor([theta]), generator(2), **limits)
        draws = dense(drawn).numpy()[:, 0]
        observed = np.array([((draws > a) & (draws <= b)).sum() for a, b in pairwise(edges)])
        assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_samples_of_a_block_keep_to_their_own_means():
    mean = torch.tensor([[0.0, 0.5, 10.0, 1000.0], [1000.0, 10.0, 0.5, 0.0]])
    theta = torch.tensor([1.0, 1.0, 10.0, 10.0])
    draws = torch.stack([dense(draw_negative_binomial(mean, theta, generator(seed))) for seed in range(500)])
    error = (mean + mean**2 / theta).sqrt() / 500**0.5
    assert ((draws.mean(0) - mean).abs() <= 5 * error).all()
    assert (draws[:, mean == 0] == 0).all()


def test_cells_are_drawn_independently():
    draws = dense(draw_negative_binomial(torch.full((2000, 20), 2.0), torch.ones(20), generator())).numpy()
    correlation = np.corrcoef(draws.T)
    assert np.abs(correlation - np.eye(20)).max() < 5 / np.sqrt(2000)


def test_uniform_of_zero_gives_a_finite_count(monkeypatch):
    """One float32 uniform in 2^24 is exactly zero: the walk up the distribution must end there too."""
    monkeypatch.setattr(inversion.torch, "rand", lambda shape, **_: torch.zeros(shape))

    def stuck(*_):
        raise AssertionError("the walk does not end")

    previous = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(20)
    try:
        # Of some thousand cells, several have a first byte of zero as well.
        mean = torch.tensor([[0.00165, 0.5, 3.0, 20.0, 0.0]]).repeat(4000, 1)
        for theta in (0.41, 1.0, 3.3, 2000.0):
            counts = dense(draw_negative_binomial(mean, torch.full((5,), theta), generator())).numpy().max(0)
            # The tail that such a draw stands for is 2^-33.
            law = scipy_nb(np.array(theta), mean[0, :4].numpy())
            assert (counts[:4] >= law.isf(2.0**-32)).all()
            assert (counts[:4] <= law.isf(2.0**-34)).all()
            assert counts[4] == 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("draw", [draw_poisson, lambda mean, g: draw_negative_binomial(mean, torch.ones(40), g)])
def test_what_a_cell_draws_does_not_depend_on_the_cells_after_it(draw):
    """Rare, ordinary and abundant genes: each kind of draw has a stream of its own."""
    mean = torch.logspace(-3, 3.5, 40).repeat(20, 1)
    other = mean.clone()
    other[7:] = other[7:].flip(1) * 0.3
    first, second = dense(draw(mean, generator())), dense(draw(other, generator()))
    assert torch.equal(first[:7], second[:7])
    assert not torch.equal(first[7:], second[7:])


def test_sparse_counts_are_the_matrix_they_describe():
    drawn = SparseCounts(torch.tensor([1, 4, 11]), torch.tensor([3.0, 1.0, 7.0]), (4, 3))
    expected = np.array([[0, 3, 0], [0, 1, 0], [0, 0, 0], [0, 0, 7]])
    for n_cells in (4, 3, 0):
        matrix = drawn.to_csr(n_cells)
        assert np.array_equal(matrix.toarray(), expected[:n_cells])
        assert matrix.has_canonical_format
        assert (matrix.dtype, matrix.indices.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("likelihood", [Poisson(4), NegativeBinomial(4)])
def test_sampling_is_reproduced_by_its_generator_alone(likelihood):
    means = torch.tensor([[0.1, 5.0, 40.0, 3000.0]]).repeat(50, 1)
    of = {"log_rate": means.log()}, means.sum(1)
    first = dense(likelihood.sample(*of, generator(3)))
    torch.rand(10)
    assert torch.equal(first, dense(likelihood.sample(*of, generator(3))))
    assert not torch.equal(first, dense(likelihood.sample(*of, generator(4))))


def test_poisson_samples_have_the_moments_of_the_poisson():
    draws = dense(draw_poisson(torch.tensor([[0.05, 4.0, 900.0]]).repeat(N_DRAWS, 1), generator())).double()
    mean = torch.tensor([0.05, 4.0, 900.0]).double()
    assert ((draws.mean(0) - mean).abs() < 5 * (mean / N_DRAWS).sqrt()).all()
    assert ((draws.var(0) - mean).abs() < 5 * mean * ((2 + 1 / mean) / N_DRAWS).sqrt()).all()


def test_samples_use_the_dispersion_of_the_category():
    likelihood = NegativeBinomial(1, n_categories=2)
    with torch.no_grad():
        likelihood.scaled_log_theta.zero_()
        likelihood.scaled_offset.copy_(torch.tensor([[-2.0], [3.0]]) / likelihood.STEP_FACTOR)
    for code, log_theta in ((0, -2.0), (1, 3.0), (-1, 0.0)):
        # The only gene of a cell gets its whole library size.
        of = {"log_rate": torch.zeros(N_DRAWS, 1)}, torch.full((N_DRAWS,), 4.0)
        draws = dense(likelihood.sample(*of, generator(code + 5), torch.full((N_DRAWS,), code)))
        zero = stats.nbinom(np.exp(log_theta), np.exp(log_theta) / (np.exp(log_theta) + 4.0)).pmf(0)
        assert (draws == 0).double().mean().item() == pytest.approx(zero, abs=5 * np.sqrt(zero * (1 - zero) / N_DRAWS))

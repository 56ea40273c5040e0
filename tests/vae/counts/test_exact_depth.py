"""Counts that add up to a depth: their sums, and their law in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scldm.vae.counts.base import LOG_RATE, Likelihood
from scldm.vae.counts.exact import draw_molecules, sample_to_depth
from scldm.vae.counts.negative_binomial import NegativeBinomial
from scldm.vae.counts.poisson import Poisson
from scldm.vae.counts.registry import LIKELIHOODS
from scldm.vae.counts.zero_inflated_negative_binomial import GATE_LOGIT, ZeroInflatedNegativeBinomial

N_CELLS = 20_000
SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1])
N_GENES = len(SHARES)


def heads_of(likelihood: Likelihood, n_cells: int = N_CELLS) -> dict[str, torch.Tensor]:
    zeros = torch.zeros(n_cells, N_GENES)
    return {name: zeros + SHARES.log() if name == LOG_RATE else zeros.clone() for name in likelihood.heads}


def depths(n_cells: int, depth: float | None = None) -> torch.Tensor:
    return torch.full((n_cells,), depth) if depth else 1.0 + torch.arange(n_cells, dtype=torch.float32) % 500


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=sorted(LIKELIHOODS))
def likelihood(request) -> Likelihood:
    return LIKELIHOODS[request.param].load()(N_GENES)


def test_counts_add_up_and_genes_without_a_rate_have_none(likelihood):
    heads = heads_of(likelihood, 1000)
    heads[LOG_RATE][:, 2] = -torch.inf
    drawn = sample_to_depth(likelihood, heads, depths(1000), rng()).to_csr()
    np.testing.assert_array_equal(np.asarray(drawn.sum(axis=1)).ravel(), depths(1000))
    assert drawn[:, 2].nnz == 0
    assert drawn.has_canonical_format


def test_cells_do_not_depend_on_those_after_them(likelihood):
    few, many = (
        sample_to_depth(likelihood, heads_of(likelihood, n), depths(n), rng()).to_csr().toarray() for n in (7, 90)
    )
    np.testing.assert_array_equal(many[:7], few)


def test_rates_have_the_mean_of_the_counts(likelihood):
    heads, library_size = heads_of(likelihood), depths(N_CELLS, 200.0)
    rates = likelihood.sample_rates(heads, library_size, rng())
    with torch.no_grad():
        expected = likelihood.expected_counts(heads, library_size)
        theta = torch.inf if isinstance(likelihood, Poisson) else likelihood.inverse_dispersion()
    # Var(gamma) = mean^2 / theta; a gate that is closed as rarely as at the start adds less than that.
    tolerance = 5 * expected.mean(0) * (2 / theta / N_CELLS) ** 0.5 + 1e-3
    assert ((rates.mean(0) - expected.mean(0)).abs() <= tolerance).all()


def test_of_poisson_counts_they_are_multinomial():
    n = 50.0
    drawn = sample_to_depth(Poisson(N_GENES), heads_of(Poisson(N_GENES)), depths(N_CELLS, n), rng()).to_csr().toarray()
    variance = n * SHARES * (1 - SHARES)
    np.testing.assert_allclose(drawn.mean(0), n * SHARES, atol=5 * (variance.max().item() / N_CELLS) ** 0.5)
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.06)
    np.testing.assert_allclose(np.cov(drawn[:, 0], drawn[:, 1])[0, 1], -n * SHARES[0] * SHARES[1], rtol=0.06)


@pytest.mark.parametrize("theta", [0.5, 3.0])
def test_of_negative_binomial_counts_with_equal_means_they_are_dirichlet_multinomial(theta):
    likelihood, n = NegativeBinomial(N_GENES), 50.0
    with torch.no_grad():
        likelihood.scaled_log_theta.fill_(np.log(theta) / likelihood.STEP_FACTOR)
    drawn = sample_to_depth(likelihood, {LOG_RATE: torch.zeros(N_CELLS, N_GENES)}, depths(N_CELLS, n), rng())
    share, total = 1 / N_GENES, N_GENES * theta
    variance = n * share * (1 - share) * (n + total) / (1 + total)
    counts = drawn.to_csr().toarray()
    np.testing.assert_allclose(counts.mean(0), n * share, atol=5 * (variance / N_CELLS) ** 0.5)
    np.testing.assert_allclose(counts.var(0), variance, rtol=0.06)


def test_a_closed_gate_lets_nothing_through_unless_nothing_else_is_left():
    likelihood = ZeroInflatedNegativeBinomial(N_GENES)
    heads = heads_of(likelihood)
    heads[GATE_LOGIT][:, 0] = torch.inf
    drawn = sample_to_depth(likelihood, heads, depths(N_CELLS, 10.0), rng()).to_csr()
    assert drawn[:, 0].nnz == 0
    heads[GATE_LOGIT][:] = 30.0
    drawn = sample_to_depth(likelihood, heads, depths(N_CELLS, 10.0), rng()).to_csr()
    np.testing.assert_allclose(np.asarray(drawn.mean(axis=0)).ravel(), 10 * SHARES, atol=0.1)


def test_a_deep_cell_has_its_shares():
    drawn = draw_molecules(SHARES[None], torch.tensor([1e6]), rng())
    np.testing.assert_allclose(drawn.to_csr().toarray()[0] / 1e6, SHARES, atol=3e-3)

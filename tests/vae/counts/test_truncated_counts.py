"""Counts of cells that have at least one: the conditional law, and the counts as they were where nothing is empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scldm.vae.counts import truncated
from scldm.vae.counts.base import LOG_RATE
from scldm.vae.counts.negative_binomial import NegativeBinomial
from scldm.vae.counts.poisson import Poisson
from scldm.vae.counts.truncated import sample_some_counts

N_CELLS, RATES = 20_000, torch.tensor([0.5, 0.3, 0.2])


def heads() -> dict[str, torch.Tensor]:
    return {LOG_RATE: RATES.log().expand(N_CELLS, 3).contiguous()}


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("depth", [0.05, 1.0, 2.0])
def test_totals_have_the_law_of_a_poisson_above_zero(depth):
    drawn = sample_some_counts(Poisson(3), heads(), torch.full((N_CELLS,), depth), rng()).to_csr()
    totals = np.asarray(drawn.sum(axis=1)).ravel()
    assert totals.min() >= 1
    mean = depth / -np.expm1(-depth)
    variance = mean * (1 + depth - mean)
    assert totals.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / N_CELLS))
    # Given the total, a count falls to each gene by its share.
    np.testing.assert_allclose(np.asarray(drawn.sum(axis=0)).ravel() / totals.sum(), RATES, atol=0.02)


def test_cells_that_are_not_empty_are_what_is_drawn_without_the_condition():
    likelihood = NegativeBinomial(3)
    depth = torch.where(torch.arange(N_CELLS) % 2 == 0, 1.0, 500.0)
    plain = likelihood.sample(heads(), depth, rng()).to_csr()
    some = sample_some_counts(likelihood, heads(), depth, rng()).to_csr()
    there = np.diff(plain.indptr) > 0
    assert 0.1 < 1 - there.mean() < 0.5
    assert (plain[there] != some[there]).nnz == 0
    assert (np.diff(some.indptr) > 0).all()
    assert some.has_canonical_format


def test_a_cell_that_stays_empty_gets_one_count_by_its_shares(monkeypatch):
    monkeypatch.setattr(truncated, "MOST_DRAWS", 1)
    drawn = sample_some_counts(Poisson(3), heads(), torch.full((N_CELLS,), 1e-9), rng()).to_csr()
    assert (np.asarray(drawn.sum(axis=1)) == 1).all()
    np.testing.assert_allclose(np.asarray(drawn.mean(axis=0)).ravel(), RATES, atol=0.02)

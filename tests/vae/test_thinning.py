from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import tiny
import torch
from scipy import stats

from scldm.data.batch import CellBatch
from scldm.nn.dropout import draw_seeds
from scldm.seeds import torch_rng
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective
from scldm.vae.thinning import EXACT_COUNT, binomial, thin


def seeds_of(n_cells: int, number: int = 0) -> torch.Tensor:
    return draw_seeds(n_cells, torch_rng(0, "test", number, "cpu"))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.77, 0.999])
@pytest.mark.parametrize("n", [1, 2, 5, EXACT_COUNT])
def test_small_counts_are_the_inverse_of_the_distribution(n, p):
    uniform = (np.arange(1000) + 0.5) / 1000
    # on the steps of the distribution rounding would decide
    steps = stats.binom.cdf(np.arange(n + 1), n, p)
    uniform = uniform[np.abs(uniform[:, None] - steps).min(axis=1) > 1e-5]
    found = binomial(
        torch.full((len(uniform),), float(n)), torch.full((len(uniform),), p), torch.tensor(uniform).float()
    )
    np.testing.assert_array_equal(found.numpy(), stats.binom.ppf(uniform, n, p))


@pytest.mark.parametrize("n", [9, 40, 5000])
def test_large_counts_have_the_mean_and_variance_of_the_distribution(n):
    p, uniform = 0.4, (torch.arange(200_000) + 0.5) / 200_000
    found = binomial(torch.full_like(uniform, float(n)), torch.full_like(uniform, p), uniform).double()
    assert found.mean().item() == pytest.approx(n * p, rel=2e-3)
    assert found.var().item() == pytest.approx(n * p * (1 - p), rel=0.05)
    assert found.min() >= 0
    assert found.max() <= n
    torch.testing.assert_close(found, found.round())


def test_what_is_kept_of_poisson_counts_is_a_shallower_cell():
    counts = np.random.default_rng(0).poisson(3.0, size=(400, 50)).astype(np.float32)
    batch = CellBatch.from_csr(sp.csr_matrix(counts))
    kept = torch.full((400,), 0.3)
    thinned = thin(batch, kept, seeds_of(400))
    values = sp.csr_matrix((thinned.counts.numpy(), thinned.gene_ids.numpy(), thinned.offsets.numpy()), (400, 50))
    rest = counts - values.toarray()
    assert values.toarray().mean() == pytest.approx(0.9, abs=0.02)
    assert values.toarray().var() == pytest.approx(0.9, abs=0.04)
    # and says nothing of what is not kept
    assert abs(np.corrcoef(values.toarray().ravel(), rest.ravel())[0, 1]) < 0.02
    np.testing.assert_array_equal(thinned.library_size.numpy(), values.toarray().sum(axis=1))


def test_it_follows_from_the_cell_and_not_from_the_batch():
    batch, seeds, kept = tiny.tiny_batch(), seeds_of(8), torch.linspace(0.2, 0.9, 8)
    whole, part = thin(batch, kept, seeds), thin(batch.slice(3, 6), kept[3:6], seeds[3:6])
    start, stop = (int(batch.offsets[i]) for i in (3, 6))
    assert torch.equal(whole.counts[start:stop], part.counts)
    assert torch.equal(whole.library_size[3:6], part.library_size)
    assert not torch.equal(thin(batch, kept, seeds_of(8, 1)).counts, whole.counts)


def test_all_is_kept_at_one_and_a_cell_is_never_empty():
    batch = tiny.tiny_batch()
    assert torch.equal(thin(batch, torch.ones(8), seeds_of(8)).counts, batch.counts)
    nothing = thin(batch, torch.full((8,), 1e-6), seeds_of(8))
    assert torch.equal(nothing.counts, batch.counts)
    assert torch.equal(nothing.library_size, batch.library_size)


def test_the_encoder_sees_thinned_cells_in_training_and_decodes_the_whole():
    torch.manual_seed(0)
    objective, batch = VAEObjective(VAE(tiny.tiny_vae(thinning=0.7, dropout=0.0), 60)), tiny.tiny_batch()
    noise = objective.draw_noise(8, torch_rng(0, "vae", 0, "cpu"))
    vae = objective.network.train()
    seen = thin(batch, 1 - 0.7 * noise["thinning"], noise["thinned"])
    heads = vae.heads(vae.encode(seen).sample(noise["latents"]))
    torch.testing.assert_close(
        objective.train()(batch, noise)["nll"], vae.likelihood.negative_log_likelihood(heads, batch)
    )
    whole = vae.heads(vae.encode(batch).sample(noise["latents"]))
    torch.testing.assert_close(
        objective.eval()(batch, noise)["nll"], vae.likelihood.negative_log_likelihood(whole, batch)
    )


@pytest.mark.parametrize("changes", [{"thinning": 0.0}, {"thinning": 0.7, "layout": "published"}])
def test_nothing_is_thinned_where_it_is_not_asked_for_or_not_possible(changes):
    objective = VAEObjective(VAE(tiny.tiny_vae(**changes), 60))
    assert "thinning" not in objective.draw_noise(8, torch_rng(0, "vae", 0, "cpu"))


def test_an_entry_without_a_count_is_as_good_as_none_to_the_encoder():
    vae, batch = VAE(tiny.tiny_vae(), 60).eval(), tiny.tiny_batch()
    thinned = thin(batch, torch.full((8,), 0.4), seeds_of(8))
    matrix = sp.csr_matrix((thinned.counts.numpy(), thinned.gene_ids.numpy(), thinned.offsets.numpy()), (8, 60))
    dropped = CellBatch.from_csr(matrix, thinned.categorical.numpy(), thinned.continuous.numpy())
    assert len(dropped.counts) < len(thinned.counts)
    torch.testing.assert_close(vae.encode(thinned).mean, vae.encode(dropped).mean, rtol=1e-4, atol=1e-5)

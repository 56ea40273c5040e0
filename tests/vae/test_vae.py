from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from scldm.vae.model import DETERMINISTIC_LOG_VARIANCE, VAE, Posterior

LAYOUTS = ["wide", "published"]
BOTTLENECKS = ["gaussian", "layernorm"]
N_GENES = 60


def vae_of(layout: str = "wide", bottleneck: str = "gaussian", **changes) -> VAE:
    torch.manual_seed(0)
    return VAE(tiny.tiny_vae(layout=layout, bottleneck=bottleneck, **changes), N_GENES).eval()


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_kl_divergence_is_the_closed_form():
    mean, log_variance = randn(5, 2, 4), randn(5, 2, 4, seed=1)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=(1, 2))
    torch.testing.assert_close(Posterior(mean, log_variance).kl_divergence(), expected)
    standard = Posterior(torch.zeros(3, 2, 4), torch.zeros(3, 2, 4))
    assert torch.equal(standard.kl_divergence(), torch.zeros(3))
    assert torch.equal(Posterior(mean, None).kl_divergence(), torch.zeros(5))


def test_posterior_samples_are_the_noise_scaled_and_shifted():
    mean, log_variance, noise = randn(5, 2, 4), randn(5, 2, 4, seed=1), randn(5, 2, 4, seed=2)
    expected = mean + torch.exp(log_variance).sqrt() * noise
    torch.testing.assert_close(Posterior(mean, log_variance).sample(noise), expected)
    assert torch.equal(Posterior(mean, None).sample(noise), mean)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layernorm_bottleneck_is_normalised_and_deterministic(layout):
    vae = vae_of(layout, "layernorm")
    posterior = vae.encode(tiny.tiny_batch())
    assert posterior.log_variance is None
    assert posterior.mean.shape == (8, 2, 4)
    assert posterior.mean.mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(posterior.mean.var(-1, unbiased=False), torch.ones(8, 2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_rates_are_positive_and_sum_to_the_library_size(layout, bottleneck):
    vae = vae_of(layout, bottleneck)
    library_size = torch.tensor([1.0, 50.0, 3e4, 1e6])
    expected = vae.expected_counts(5 * randn(4, 2, 4), library_size)
    assert expected.shape == (4, N_GENES)
    assert (expected > 0).all()
    torch.testing.assert_close(expected.sum(1), library_size, rtol=1e-5, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_latents_of_a_cell_do_not_depend_on_its_batch(layout, bottleneck):
    vae, batch = vae_of(layout, bottleneck), tiny.tiny_batch()
    together = vae.encode(batch)
    for i in range(8):
        alone = vae.encode(batch.slice(i, i + 1))
        torch.testing.assert_close(alone.mean[0], together.mean[i], rtol=1e-4, atol=1e-5)
        if bottleneck == "gaussian":
            torch.testing.assert_close(alone.log_variance[0], together.log_variance[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
def test_encoded_arrays_are_flattened_token_by_token(bottleneck):
    vae, batch = vae_of(bottleneck=bottleneck), tiny.tiny_batch()
    mean, log_variance = vae.encode_arrays(batch)
    posterior = vae.encode(batch)
    assert mean.dtype == log_variance.dtype == np.float32
    np.testing.assert_array_equal(mean[:, 4:], posterior.mean[:, 1].detach().numpy())
    if bottleneck == "gaussian":
        np.testing.assert_array_equal(log_variance[:, :4], posterior.log_variance[:, 0].detach().numpy())
    else:
        assert (log_variance == DETERMINISTIC_LOG_VARIANCE).all()


def test_sampled_counts_are_integers_around_the_expected_counts():
    vae = vae_of()
    latents, library_size = randn(1, 2, 4).repeat(4000, 1, 1), torch.full((4000,), 500.0)
    expected = vae.expected_counts(latents[:1], library_size[:1])[0]
    drawn = vae.sample_counts(latents, library_size, torch.Generator().manual_seed(0))
    counts = torch.from_numpy(drawn.to_csr().toarray())
    theta = vae.likelihood.inverse_dispersion()
    assert torch.equal(counts, counts.round())
    error = ((expected + expected**2 / theta) / 4000).sqrt()
    assert ((counts.mean(0) - expected).abs() < 5 * error).all()


def test_networks_are_the_same_for_the_same_seed_and_names_are_unique():
    for layout in LAYOUTS:
        first, second = (dict(vae_of(layout).named_parameters()) for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)
        storages = [parameter.data_ptr() for parameter in first.values()]
        assert len(set(storages)) == len(storages)

"""What the likelihood is told of a gene is float32, where all else is computed in bfloat16 as well."""

from __future__ import annotations

import pytest
import tiny
import torch

from scldm.vae.counts.registry import LIKELIHOODS
from scldm.vae.model import VAE

N_CELLS, N_GENES = 4, 60


def build(layout: str, likelihood: str) -> VAE:
    config = tiny.tiny_vae(layout=layout, likelihood=likelihood)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VAE(config, N_GENES).eval()
        with torch.no_grad():
            for weight in vae.decoder.parameters():
                weight += 0.1 * torch.randn(weight.shape)
    return vae


@pytest.mark.parametrize("layout", ["wide", "published"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_heads_of_the_same_hidden_state_do_not_depend_on_autocast(layout, likelihood, monkeypatch):
    vae = build(layout, likelihood)
    latents = torch.randn(
        N_CELLS, vae.config.n_latents, vae.config.latent_channels, generator=torch.Generator().manual_seed(1)
    )
    # The last tensor before the read-out of the genes: of a cell, or of a cell and a gene.
    holder, name = (vae.decoder, "features") if layout == "wide" else (vae.decoder.unpooling, "attend")
    compute, kept = getattr(holder, name), []

    def hidden(*arguments: torch.Tensor) -> torch.Tensor:
        if not kept:
            kept.append(compute(*arguments))
        return kept[0]

    monkeypatch.setattr(holder, name, hidden)
    expected = vae.heads(latents)
    with torch.autocast("cpu", torch.bfloat16):
        found = vae.heads(latents)
    assert found.keys() == expected.keys() == set(vae.likelihood.heads)
    for head in expected:
        assert found[head].dtype == torch.float32
        assert torch.equal(found[head], expected[head])
    # The rates are not the bfloat16 numbers nearest to them.
    assert not torch.equal(expected["log_rate"], expected["log_rate"].bfloat16().float())

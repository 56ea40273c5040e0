"""The configurations that are shipped: each one is read, and has the sizes its comments promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scldm.commands.demo import DEMO_CONFIG
from scldm.config import RunConfig, load_config
from scldm.prior.dit import DiT
from scldm.vae.model import VAE

CONFIGS = Path(__file__).parents[1] / "configs"
CENSUS_GENES = 36_000


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def build_prior(config: RunConfig) -> DiT:
    vae, prior = config.vae, config.prior
    return DiT(vae.n_latents, vae.latent_channels, prior.width, prior.n_layers, prior.n_heads, (10,))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configuration_is_valid_and_conditions_on_something(path):
    config = load_config(path)
    assert config.data.path
    assert config.data.conditions


def test_demo_configuration_is_what_the_demo_runs():
    assert load_config(CONFIGS / "demo.yaml") == DEMO_CONFIG


@pytest.mark.parametrize("name", ["dentate_gyrus", "tabula_muris", "hlca", "parse1m", "replogle"])
def test_configurations_of_the_paper_have_its_sizes(name):
    config = load_config(CONFIGS / f"{name}.yaml")
    vae = config.vae
    assert (vae.layout, vae.width, vae.n_latents, vae.latent_channels, vae.n_layers) == ("published", 32, 16, 16, 8)
    with torch.device("meta"):
        assert parameters(build_prior(config)) == pytest.approx(9.7e6, rel=0.01)
    for stage in (config.vae_training, config.prior_training):
        assert stage.batch_size == 128
        assert stage.warmup_cells == pytest.approx(0.1 * stage.cells)


@pytest.mark.parametrize(("name", "size"), [("20m", 20e6), ("70m", 70e6), ("270m", 270e6)])
def test_census_autoencoders_have_the_size_in_their_name(name, size):
    config = load_config(CONFIGS / f"census_{name}.yaml")
    with torch.device("meta"):
        assert parameters(VAE(config.vae, CENSUS_GENES)) == pytest.approx(size, rel=0.02)


def test_largest_prior_has_some_sixty_million_parameters():
    with torch.device("meta"):
        assert parameters(build_prior(load_config(CONFIGS / "census_270m.yaml"))) == pytest.approx(58e6, rel=0.02)

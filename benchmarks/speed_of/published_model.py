"""The published system put together from our parts: networks, what they minimise, the guided velocity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scldm.config import VAEConfig
from scldm.data import CellBatch
from scldm.data.source import CellSource
from scldm.nn.objective import Noise, Objective
from scldm.prior.dit import DiT
from scldm.prior.solvers import Velocity
from scldm.vae.counts.negative_binomial import NegativeBinomial
from scldm.vae.model import VAE
from scldm.vae.published import PublishedDecoder
from speed_of.job import GUIDANCE, Settings

PUBLISHED_VAE = VAEConfig(
    layout="published", width=32, n_layers=8, n_heads=8, n_latents=16, latent_channels=16,
    bottleneck="layernorm", gene_tokens="log1p", mask_padding=False,
)  # fmt: skip
#: Tokens, channels per token, width, layers, heads of the published prior.
PUBLISHED_DIT = (16, 16, 256, 8, 8)


def published_vae(settings: Settings, n_genes: int) -> VAE:
    torch.manual_seed(0)
    vae = VAE(PUBLISHED_VAE, n_genes)
    # Ours recomputes chunks of genes to save memory; the published code keeps everything.
    assert isinstance(vae.decoder, PublishedDecoder)
    vae.decoder.gene_chunk = n_genes
    return vae.to(settings.device)


class PublishedVAEObjective(Objective):
    """Reconstruction alone, the likelihood written out over all (cell, gene) pairs."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.network: VAE = vae

    def draw_noise(self, n_cells: int, generator: torch.Generator) -> Noise:
        return {}

    def forward(self, batch: CellBatch, noise: Noise) -> dict[str, Tensor]:
        vae, eps = self.network, 1e-8
        assert isinstance(vae.likelihood, NegativeBinomial)
        mean = vae.heads(vae.encode(batch).mean)["log_rate"].softmax(dim=-1) * batch.library_size[:, None]
        theta, counts = vae.likelihood.inverse_dispersion(), batch.dense(vae.n_genes)
        log_total = (theta + mean + eps).log()
        log_likelihood = (
            theta * ((theta + eps).log() - log_total)
            + counts * ((mean + eps).log() - log_total)
            + torch.lgamma(counts + theta)
            - torch.lgamma(theta)
            - torch.lgamma(counts + 1)
        )
        return {"loss": -log_likelihood.sum(dim=1)}


class PublishedPriorObjective(Objective):
    """Flow matching that encodes the cells of every step anew."""

    def __init__(self, vae: VAE, prior: DiT, statistics: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.network: DiT = prior
        # In a tuple: the autoencoder is not trained, averaged or clipped here.
        self.tokenizer = (vae.eval().requires_grad_(False),)
        self.register_buffer("mean", statistics[0])
        self.register_buffer("std", statistics[1])

    mean: Tensor
    std: Tensor

    def draw_noise(self, n_cells: int, generator: torch.Generator) -> Noise:
        device, size = generator.device, self.network.state_size
        return {
            "state": torch.randn(n_cells, size, generator=generator, device=device),
            "time": torch.rand(n_cells, generator=generator, device=device),
            "hide": torch.rand(n_cells, len(self.network.attributes.tables), generator=generator, device=device),
        }

    def forward(self, batch: CellBatch, noise: Noise) -> dict[str, Tensor]:
        with torch.no_grad():
            data = (self.tokenizer[0].encode(batch).mean.flatten(1) - self.mean) / self.std
        start, times = noise["state"], noise["time"]
        state = torch.lerp(start, data, times[:, None])
        codes = torch.where(noise["hide"] < 0.15, -1, batch.categorical)
        velocity = self.network(state, times, codes, batch.continuous)
        return {"loss": (velocity - (data - start)).square().mean(dim=1)}


def published_prior(settings: Settings, source: CellSource) -> DiT:
    torch.manual_seed(1)
    return DiT(*PUBLISHED_DIT, source.schema.n_categories, with_depth=False, time_scale=1.0).to(settings.device)


def latent_statistics(settings: Settings, vae: VAE, source: CellSource) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        cells = source.batch(np.arange(min(256, source.n_cells))).to(settings.device)
        latents = vae.eval().encode(cells).mean.flatten(1)
    return latents.mean(dim=0), latents.std(dim=0).clamp_min(1e-4)


def published_field(prior: DiT, categorical: Tensor) -> Velocity:
    """Guided velocity; rows are without attributes, with all of them, and with one each, for every cell."""
    n_attributes = categorical.shape[1]
    one_each = [
        torch.where(torch.arange(n_attributes, device=categorical.device) == k, categorical, -1)
        for k in range(n_attributes)
    ]
    codes = torch.cat([torch.full_like(categorical, -1), categorical, *one_each])
    numbers = codes.new_zeros(len(codes), 0, dtype=torch.float32)

    def velocity(state: Tensor, at: float) -> Tensor:
        rows = prior(state.repeat(2 + n_attributes, 1), state.new_full((len(codes),), at), codes, numbers)
        # What all attributes together give is evaluated and, guided by each of them, not needed.
        without, _, *parts = rows.chunk(2 + n_attributes)
        return without + GUIDANCE * torch.stack([part - without for part in parts]).sum(dim=0)

    return velocity

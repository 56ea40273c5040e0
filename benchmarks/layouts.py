"""Autoencoder layouts side by side: likelihood of held-out cells at convergence, and cost of a training step.

    SCLDM_DATA=... python benchmarks/layouts.py pbmc_facs_zheng [--genes 2000] [--cells 128000] [--variants wide ...]

One split, one optimiser, one stopping rule (best validation weights) for all. Variants: `wide` (the default layout),
`sum` (wide, pooling by a plain weighted sum), `mean` (wide, attention pooling that forgets the magnitudes),
`published`, and `mlp` (two layers of 128 units each way, as scVI has them).
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import torch
from held_out import split_dataset, train_and_measure
from torch import nn

from scldm.config import RunConfig, VAEConfig
from scldm.data import CellBatch
from scldm.vae.base import Decoder, Encoder
from scldm.vae.counts.base import LOG_RATE, Heads
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective
from scldm.vae.pooling import AttentionPooling


class SumPooling(AttentionPooling):
    """Plain sum of count-weighted values."""

    def forward(self, batch: CellBatch) -> tuple[torch.Tensor, torch.Tensor]:
        weights = torch.log1p(batch.counts * (1e4 / batch.library_size)[batch.cell_ids()])
        bags = nn.functional.embedding_bag(
            batch.gene_ids, self.scored_values, batch.offsets[:-1], mode="sum", per_sample_weights=weights
        )
        depth = batch.library_size.log()[:, None].expand(-1, self.n_magnitudes) - 6.0
        return bags * 1e-3, depth + 0 * self.keys.sum() + 0 * self.queries.sum()


class MeanPooling(AttentionPooling):
    """Attention that returns its weighted mean alone."""

    def forward(self, batch: CellBatch) -> tuple[torch.Tensor, torch.Tensor]:
        pooled, magnitudes = super().forward(batch)
        return pooled, torch.zeros_like(magnitudes)


class DenseEncoder(Encoder):
    def __init__(self, n_genes: int, n_latents: int, width: int) -> None:
        super().__init__()
        self.n_genes, self.shape = n_genes, (n_latents, width)
        self.net = nn.Sequential(
            nn.Linear(n_genes, 128), nn.LayerNorm(128), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(128, 128), nn.LayerNorm(128), nn.ReLU(), nn.Linear(128, n_latents * width),
        )  # fmt: skip

    def forward(self, batch: CellBatch, pooled_dropout: torch.Tensor | None = None) -> torch.Tensor:
        return self.net(torch.log1p(batch.dense(self.n_genes))).view(-1, *self.shape)


class DenseDecoder(Decoder):
    def __init__(self, n_genes: int, n_inputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_inputs, 128), nn.LayerNorm(128), nn.ReLU(),
            nn.Linear(128, 128), nn.LayerNorm(128), nn.ReLU(), nn.Linear(128, n_genes),
        )  # fmt: skip

    def forward(self, latents: torch.Tensor) -> Heads:
        return {LOG_RATE: self.net(latents.flatten(1))}


def build(variant: str, n_genes: int, totals: np.ndarray) -> VAE:
    if variant == "published":
        config = VAEConfig(layout="published", width=32, n_layers=8, n_heads=8, n_latents=16, latent_channels=16)
        return VAE(config, n_genes, 0, totals)
    vae = VAE(VAEConfig(), n_genes, 0, totals)
    pooling = {"sum": SumPooling, "mean": MeanPooling}.get(variant)
    if pooling is not None:
        vae.encoder.pooling.__class__ = pooling
    if variant == "mlp":
        vae.encoder = DenseEncoder(n_genes, vae.config.n_latents, vae.config.width)
        vae.decoder = DenseDecoder(n_genes, vae.config.n_latents * vae.config.latent_channels)
    return vae


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--cells", type=int, default=128_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--variants", nargs="*", default=["wide", "sum", "mean", "mlp", "published"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    split = split_dataset(arguments.dataset, arguments.genes)
    training = dataclasses.replace(
        RunConfig().vae_training,
        cells=arguments.cells, keep="best", patience=1.5, learning_rate=arguments.learning_rate,
    )  # fmt: skip
    print(f"{split}, threads: {arguments.threads}")
    for variant in arguments.variants:
        torch.manual_seed(0)
        result = train_and_measure(VAEObjective(build(variant, split.n_genes, split.gene_totals)), split, training)
        print(
            f"{variant:10s} test NLL {result.test_nll:.1f} best {result.best_cells} of {result.cells}"
            f"  {result.milliseconds_per_cell:.2f} ms/cell  {result.seconds:.0f} s  {result.n_parameters:,} parameters",
            flush=True,
        )


if __name__ == "__main__":
    main()

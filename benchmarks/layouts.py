"""Autoencoder layouts side by side: likelihood of held-out cells at convergence, and cost of a training step.

    SCLDM_DATA=... python benchmarks/layouts.py pbmc_facs_zheng [--genes 2000] [--cells 128000] [--variants wide ...]

One split, one optimiser, one stopping rule (best validation weights) for all. Variants: `wide` (the default layout),
`sum` (wide, pooling by a plain weighted sum), `mean` (wide, attention pooling that forgets the magnitudes),
`published`, and `mlp` (two layers of 128 units each way, as scVI has them).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from torch import nn

from scldm.config import RunConfig, VAEConfig
from scldm.data import CellBatch, CellDataset, open_source, read_counts, split_cells
from scldm.seeds import generator
from scldm.training.distributed import make_accelerator
from scldm.training.stage import train_stage
from scldm.training.tracking import MetricsLog
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective
from scldm.vae.wide import AttentionPooling


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


class DenseEncoder(nn.Module):
    def __init__(self, n_genes: int, n_latents: int, width: int) -> None:
        super().__init__()
        self.n_genes, self.shape = n_genes, (n_latents, width)
        self.net = nn.Sequential(
            nn.Linear(n_genes, 128), nn.LayerNorm(128), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(128, 128), nn.LayerNorm(128), nn.ReLU(), nn.Linear(128, n_latents * width),
        )  # fmt: skip

    def forward(self, batch: CellBatch) -> torch.Tensor:
        return self.net(torch.log1p(batch.dense(self.n_genes))).view(-1, *self.shape)


class DenseDecoder(nn.Module):
    def __init__(self, n_genes: int, n_inputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_inputs, 128), nn.LayerNorm(128), nn.ReLU(),
            nn.Linear(128, 128), nn.LayerNorm(128), nn.ReLU(), nn.Linear(128, n_genes),
        )  # fmt: skip

    def features(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.flatten(1)

    def log_rates(self, features: torch.Tensor) -> torch.Tensor:
        return self.net(features)


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


def held_out_nll(objective: VAEObjective, cells: CellDataset) -> float:
    objective.eval()
    total = 0.0
    with torch.no_grad():
        for number, start in enumerate(range(0, len(cells), 256)):
            batch = cells[np.arange(start, min(start + 256, len(cells)))]
            noise = objective.draw_noise(batch.n_cells, generator(0, "test", number, "cpu"))
            total += float(objective(batch, noise)["nll"].sum())
    return total / len(cells)


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
    adata = ad.read_h5ad(Path(os.environ["SCLDM_DATA"]) / f"{arguments.dataset}.h5ad")
    totals = np.asarray(read_counts(adata).sum(0)).ravel()
    adata = adata[:, np.sort(np.argsort(-totals)[: arguments.genes])].copy()
    labels = adata.obs["cell_type"].to_numpy()
    source = open_source(adata)
    train, test = split_cells(source.n_cells, fraction=0.1, seed=0, stratify_by=labels)
    fit, validation = split_cells(len(train), fraction=0.1, seed=0, stratify_by=labels[train])
    parts = [CellDataset(source.subset(rows)) for rows in (train[fit], train[validation], test)]
    training = dataclasses.replace(
        RunConfig().vae_training,
        cells=arguments.cells, keep="best", patience=1.5, learning_rate=arguments.learning_rate,
    )  # fmt: skip
    sizes = " / ".join(str(len(rows)) for rows in (fit, validation, test))
    print(f"{source.schema.n_genes} genes, {sizes} cells, {arguments.threads} threads")
    for variant in arguments.variants:
        torch.manual_seed(0)
        objective = VAEObjective(build(variant, source.schema.n_genes, parts[0].source.gene_totals()))
        with tempfile.TemporaryDirectory() as scratch:
            log = MetricsLog(Path(scratch) / "metrics.jsonl")
            started = time.perf_counter()
            result = train_stage(
                "vae", objective, parts[0], parts[1], training,
                seed=0, seeding="64-bit", accelerator=make_accelerator("float32", cpu=True), directory=Path(scratch),
                log=log,
            )  # fmt: skip
            seconds = time.perf_counter() - started
            speeds = [
                json.loads(x)["cells_per_second"] for x in (Path(scratch) / "metrics.jsonl").read_text().splitlines()
            ]
        n_parameters = sum(p.numel() for p in objective.parameters())
        print(
            f"{variant:10s} test NLL {held_out_nll(objective, parts[2]):.1f} best {result.best_cells} of {result.cells}"
            f"  {1000 / np.median(speeds):.2f} ms/cell  {seconds:.0f} s  {n_parameters:,} parameters",
            flush=True,
        )


if __name__ == "__main__":
    main()

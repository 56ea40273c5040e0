"""Autoencoders trained side by side: one split of one data set, and the likelihood of the cells that were held out."""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import torch

from scldm.config import TrainingConfig
from scldm.data import CellDataset, open_source, read_counts, split_cells
from scldm.seeds import torch_rng
from scldm.training.distributed import make_accelerator
from scldm.training.stage import train_stage
from scldm.training.tracking import MetricsLog
from scldm.vae.objective import VAEObjective


@dataclass(frozen=True, eq=False)
class Split:
    """Cells to train on, to stop by, and to measure with."""

    fit: CellDataset
    validation: CellDataset
    test: CellDataset

    @property
    def n_genes(self) -> int:
        return self.fit.source.schema.n_genes

    @property
    def gene_totals(self) -> np.ndarray:
        return self.fit.source.gene_totals()

    def __str__(self) -> str:
        sizes = " / ".join(str(len(part)) for part in (self.fit, self.validation, self.test))
        return f"{self.n_genes} genes, {sizes} cells"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a training; the likelihood is per cell of the test split, in nats."""

    test_nll: float
    cells: int
    best_cells: int
    seconds: float
    milliseconds_per_cell: float
    n_parameters: int


def split_dataset(name: str, n_genes: int | None = None) -> Split:
    """Open a file of ``SCLDM_DATA`` with all, or the most expressed, of its genes."""
    adata = ad.read_h5ad(Path(os.environ["SCLDM_DATA"]) / f"{name}.h5ad")
    totals = np.asarray(read_counts(adata).sum(0)).ravel()
    adata = adata[:, np.sort(np.argsort(-totals)[:n_genes])].copy()
    labels = adata.obs["cell_type"].to_numpy()
    source = open_source(adata)
    train, test = split_cells(source.n_cells, fraction=0.1, seed=0, stratify_by=labels)
    fit, validation = split_cells(len(train), fraction=0.1, seed=0, stratify_by=labels[train])
    return Split(*(CellDataset(source.subset(rows)) for rows in (train[fit], train[validation], test)))


def train_and_measure(objective: VAEObjective, split: Split, training: TrainingConfig) -> Result:
    with tempfile.TemporaryDirectory() as scratch:
        log = MetricsLog(Path(scratch) / "metrics.jsonl")
        started = time.perf_counter()
        result = train_stage(
            "vae", objective, split.fit, split.validation, training,
            seed=0, seeding="64-bit", accelerator=make_accelerator("float32", cpu=True), directory=Path(scratch),
            log=log,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        rows = [json.loads(row) for row in (Path(scratch) / "metrics.jsonl").read_text().splitlines()]
    return Result(
        test_nll=held_out_nll(objective, split.test),
        cells=result.cells,
        best_cells=result.best_cells,
        seconds=seconds,
        milliseconds_per_cell=1000 / float(np.median([row["cells_per_second"] for row in rows])),
        n_parameters=sum(p.numel() for p in objective.parameters()),
    )


@torch.no_grad()
def held_out_nll(objective: VAEObjective, cells: CellDataset) -> float:
    objective.eval()
    total = 0.0
    for number, start in enumerate(range(0, len(cells), 256)):
        batch = cells[np.arange(start, min(start + 256, len(cells)))]
        noise = objective.draw_noise(batch.n_cells, torch_rng(0, "test", number, "cpu"))
        total += float(objective(batch, noise)["nll"].sum())
    return total / len(cells)

"""Measurements of how the time of scldm grows: with expressed genes, cells, solver steps and guided attributes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scldm.config import RunConfig
from scldm.data import CellDataset, open_source
from scldm.data.source import CellSource
from scldm.prior.dit import DiT
from scldm.prior.guidance import Guidance, guided_field
from scldm.prior.solvers import heun, time_grid
from speed_of.cells import open_cells, our_config
from speed_of.job import CONDITION, GUIDANCE, Job, Settings
from speed_of.meters import Memory, measure_encoding, timed, train_steps
from speed_of.ours import load_model, our_field, our_request, ours_vae


def with_expressed_genes(source: CellSource, genes: int, expressed: int, rng: np.random.Generator) -> CellDataset:
    """Cells that express as many genes as asked for: some entries dropped, or some genes with a count of 1 added."""
    batch = source.batch(np.arange(min(1024, source.n_cells)))
    rows = []
    for start, stop in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        ids, counts = batch.gene_ids[start:stop].numpy(), batch.counts[start:stop].numpy()
        if len(ids) >= expressed:
            chosen = rng.choice(len(ids), expressed, replace=False)
            ids, counts = ids[chosen], counts[chosen]
        else:
            others = rng.choice(np.setdiff1d(np.arange(genes), ids), expressed - len(ids), replace=False)
            ids, counts = np.concatenate([ids, others]), np.concatenate([counts, np.ones(len(others), np.float32)])
        rows.append(sp.csr_matrix((counts, (np.zeros_like(ids), ids)), (1, genes)))
    labels = batch.categorical.numpy()
    obs = pd.DataFrame({CONDITION: [f"label {k}" for k in labels[:, 0]]}, index=[f"cell_{i}" for i in range(len(rows))])
    adata = ad.AnnData(sp.vstack(rows, format="csr"), obs, pd.DataFrame(index=list(source.schema.genes)))
    fixed = open_source(adata, schema=source.schema, missing_labels="unlabelled")
    return CellDataset(fixed)


def measure_growth_with_expressed(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source, rng = open_cells(settings, job.genes), np.random.default_rng(0)
    memory.start()
    at, training, encoding = [100, 200, 400, 700], [], []
    for expressed in at:
        data = with_expressed_genes(source, job.genes, expressed, rng)
        objective = ours_vae(source)
        seconds = train_steps(
            settings, objective, data, our_config().vae_training, job.batch, n_steps=3 * settings.repeats, warm_ups=3
        )
        training.append(float(np.median(seconds)) / job.batch)
        result = measure_encoding(settings, objective.network, data.source, job.batch, 4)
        encoding.append(float(np.median(result["seconds"])) / result["cells"])
    curves = {"VAE training": training, "encoding": encoding}
    return {"seconds": [], "cells": 0, "at": at, "curves": curves, **memory.result()}


def measure_growth_with_cells(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    memory.start()
    model = load_model(settings, job.genes)
    path = Path(settings.work) / "sampled.h5ad"
    at = [256, 1024, 4096]
    curves: dict[str, list[float]] = {"sampling, few_step": []}

    def sample(n_cells: int) -> None:
        model.sample_to_file(path, our_request(model, n_cells, "few_step"), batch_size=job.batch, overwrite=True)

    sample(at[0])
    for n_cells in at:
        curves["sampling, few_step"] += timed(settings, functools.partial(sample, n_cells), 1, warm_ups=0)
    return {"seconds": [], "cells": 0, "at": at, "curves": curves, **memory.result()}


def measure_growth_with_steps(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    memory.start()
    field, state = our_field(settings, load_model(settings, job.genes).trained.prior, job.batch)
    at, seconds = [5, 10, 25, 50], []
    with torch.inference_mode():
        field(state, 0.5)
        for steps in at:
            solve = functools.partial(heun, field, state, time_grid(steps))
            run = timed(settings, solve, min(settings.repeats, 2), warm_ups=0)
            seconds.append(float(np.median(run)) / job.batch)
    return {"seconds": [], "cells": 0, "at": at, "curves": {"latents, heun": seconds}, **memory.result()}


def measure_growth_with_attributes(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    config = RunConfig()
    memory.start()
    torch.manual_seed(0)
    prior = DiT(
        config.vae.n_latents, config.vae.latent_channels, config.prior.width, config.prior.n_layers,
        config.prior.n_heads, (10, 10, 10),
    ).to(settings.device).eval()  # fmt: skip
    names = ("a", "b", "c")
    codes = torch.zeros(job.batch, 3, dtype=torch.int64, device=settings.device)
    numbers = torch.zeros(job.batch, 0, device=settings.device)
    state = torch.randn(job.batch, prior.state_size, device=settings.device)
    at, seconds = [1, 2, 3, 4], []
    with torch.inference_mode():
        for rows in at:
            plan = Guidance.additive(GUIDANCE).plan(names, names[: rows - 1])
            field = guided_field(prior, codes, numbers, plan)
            run = timed(settings, functools.partial(heun, field, state, time_grid(5)), min(settings.repeats, 3))
            seconds.append(float(np.median(run)) / job.batch)
    return {"seconds": [], "cells": 0, "at": at, "curves": {"latents, heun, additive": seconds}, **memory.result()}

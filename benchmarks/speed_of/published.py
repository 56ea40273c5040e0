"""Measurements of the published system."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from torch import Tensor

from scldm.data import CellDataset
from scldm.vae.counts.negative_binomial import NegativeBinomial
from speed_of.cells import open_cells, our_config
from speed_of.dopri5 import dopri5
from speed_of.job import CONDITION, Job, Settings
from speed_of.meters import Memory, measure_encoding, step_flops, timed, train_steps
from speed_of.published_model import (
    PUBLISHED_DIT,
    PublishedPriorObjective,
    PublishedVAEObjective,
    latent_statistics,
    published_field,
    published_prior,
    published_vae,
)


def measure_published_vae_training(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes)
    memory.start()
    objective, data = PublishedVAEObjective(published_vae(settings, job.genes)), CellDataset(source)
    seconds = train_steps(
        settings, objective, data, our_config().vae_training, job.batch,
        n_steps=min(settings.repeats, 3), warm_ups=2, precision="float32",
    )  # fmt: skip
    result = {"seconds": seconds, "cells": job.batch, **memory.result()}
    return {**result, "flops": step_flops(settings, objective, data, job.batch)}


def measure_published_encoding(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes)
    memory.start()
    short = dataclasses.replace(settings, repeats=min(settings.repeats, 3))
    return measure_encoding(short, published_vae(settings, job.genes), source, job.batch, 1) | memory.result()


def measure_published_prior_training(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes)
    memory.start()
    vae, prior, data = published_vae(settings, job.genes), published_prior(settings, source), CellDataset(source)
    objective = PublishedPriorObjective(vae, prior, latent_statistics(settings, vae, source))
    seconds = train_steps(
        settings, objective, data, our_config().prior_training, job.batch,
        n_steps=2 * settings.repeats, warm_ups=3, precision="float32",
    )  # fmt: skip
    result = {"seconds": seconds, "cells": job.batch, **memory.result()}
    return {**result, "flops": step_flops(settings, objective, data, job.batch)}


def prepare_published_prior(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    """Train the prior for some steps: how many evaluations an adaptive solver needs depends on the field."""
    source = open_cells(settings, job.genes)
    memory.start()
    vae, prior = published_vae(settings, job.genes), published_prior(settings, source)
    objective = PublishedPriorObjective(vae, prior, latent_statistics(settings, vae, source))
    config = dataclasses.replace(our_config().prior_training, warmup_cells=0)
    seconds = train_steps(
        settings, objective, CellDataset(source), config, 64, n_steps=60, warm_ups=1, precision="float32"
    )
    torch.save(prior.state_dict(), Path(settings.work) / "published-prior.pt")
    return {"seconds": seconds, "cells": 64, **memory.result()}


def measure_published_sampling(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes)
    genes, depths = list(source.schema.genes), source.library_sizes()
    memory.start()
    vae = published_vae(settings, job.genes).eval()
    prior = published_prior(settings, source).eval()
    prior.load_state_dict(torch.load(Path(settings.work) / "published-prior.pt", map_location=settings.device))
    mean, std = latent_statistics(settings, vae, source)
    codes = torch.zeros(job.batch, 1, dtype=torch.int64, device=settings.device)
    assert isinstance(vae.likelihood, NegativeBinomial)
    inverse_dispersion = vae.likelihood.inverse_dispersion
    field, rng = published_field(prior, codes), np.random.default_rng(0)
    path = Path(settings.work) / "sampled.h5ad"
    evaluations: list[int] = []

    def solve() -> Tensor:
        state, used = dopri5(field, torch.randn(job.batch, prior.state_size, device=settings.device))
        evaluations.append(used)
        return state

    def decode_and_write(state: Tensor) -> float:
        depth = torch.from_numpy(rng.choice(depths, job.batch)).to(settings.device)
        latents = (state * std + mean).unflatten(1, PUBLISHED_DIT[:2])
        means = vae.expected_counts(latents, depth)
        theta = inverse_dispersion()
        rates = torch.distributions.Gamma(theta, theta / means.clamp_min(1e-30)).sample()
        counts = sp.csr_matrix(torch.poisson(rates).cpu().numpy())
        obs = pd.DataFrame({CONDITION: ["label"] * job.batch}, index=[f"cell_{i}" for i in range(job.batch)])
        ad.AnnData(counts, obs, pd.DataFrame(index=genes), obsm={"latents": state.cpu().numpy()}).write_h5ad(path)
        return counts.nnz / job.batch

    repeats = min(settings.repeats, 2)
    with torch.inference_mode():
        field(torch.randn(job.batch, prior.state_size, device=settings.device), 0.5)
        state = torch.randn(job.batch, prior.state_size, device=settings.device)
        expressed = decode_and_write(state)
        solving = timed(settings, solve, repeats, warm_ups=0)
        writing = timed(settings, lambda: decode_and_write(state), repeats, warm_ups=0)
    return {
        "seconds": [a + b for a, b in zip(solving, writing, strict=True)],
        "cells": job.batch,
        "seconds_latents": solving,
        "seconds_counts": writing,
        "evaluations": evaluations,
        "expressed_genes": expressed,
        **memory.result(),
    }

"""Measurements of scldm itself."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from torch import Tensor

from scldm.data import CellDataset
from scldm.data.source import CellSource
from scldm.generation.request import GenerationRequest
from scldm.model import ScLDM
from scldm.prior.dit import DiT
from scldm.prior.few_step.solver import KINDS, FewStepSolver
from scldm.prior.guidance import Guidance, guided_field
from scldm.prior.latents import LatentStore
from scldm.prior.objective import PriorObjective
from scldm.prior.solvers import Velocity, heun, time_grid
from scldm.tasks.representation import encoded_blocks
from scldm.trained import build_prior, build_vae
from scldm.training.distributed import make_accelerator
from scldm.vae.objective import VAEObjective
from speed_of.cells import open_cells, our_config
from speed_of.job import CONDITION, GUIDANCE, Job, Settings
from speed_of.meters import Memory, measure_encoding, step_flops, timed, train_steps
from speed_of.published_model import PUBLISHED_DIT


def ours_vae(source: CellSource) -> VAEObjective:
    torch.manual_seed(0)
    return VAEObjective(build_vae(our_config(), source.schema, source.gene_totals()), None, source.n_cells)


def measure_our_vae_training(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes)
    memory.start()
    objective, data = ours_vae(source), CellDataset(source)
    seconds = train_steps(
        settings, objective, data, our_config().vae_training, job.batch, n_steps=4 * settings.repeats, warm_ups=3
    )
    result = {"seconds": seconds, "cells": job.batch, **memory.result()}
    return {**result, "flops": step_flops(settings, objective, data, job.batch)}


def measure_our_encoding(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes)
    memory.start()
    result = measure_encoding(settings, ours_vae(source).network, source, job.batch, max(1, 1024 // job.batch))
    return {**result, **memory.result()}


def measure_our_prior_training(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes)
    config = our_config()
    same_network = "published network" in job.system
    if same_network:
        n_latents, latent_channels, width, n_layers, n_heads = PUBLISHED_DIT
        config = dataclasses.replace(
            config,
            vae=dataclasses.replace(config.vae, n_latents=n_latents, latent_channels=latent_channels),
            prior=dataclasses.replace(config.prior, width=width, n_layers=n_layers, n_heads=n_heads),
        )
    training = dataclasses.replace(config.prior_training, compile=job.system.endswith("compiled"))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        vae = build_vae(config, source.schema, source.gene_totals()).eval()
        cells = source.subset(np.arange(min(2048, source.n_cells)))
        store = LatentStore.write(directory, encoded_blocks(vae, cells, use_attributes=True), cells.n_cells)
        del vae
        memory.start()
        objective = PriorObjective(build_prior(config, source.schema), store.statistics, config.prior)
        n_steps = 2 * settings.repeats if same_network else 4 * settings.repeats
        # What somebody with a processor that multiplies bf16 can ask for; the default on CPUs is float32.
        precision = "bf16" if job.system.endswith("bf16") else "auto"
        seconds = train_steps(
            settings, objective, store, training, job.batch, n_steps=n_steps, warm_ups=3, precision=precision
        )
        result = {"seconds": seconds, "cells": job.batch, **memory.result()}
        return {**result, "flops": step_flops(settings, objective, store, job.batch)}


def prepare_our_model(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    """Train for a few steps, so that sampled cells look like cells, and save."""
    config = our_config()
    short = functools.partial(dataclasses.replace, cells=2560, validate_every=2560)
    config = dataclasses.replace(
        config,
        # Fitting a few-step solver takes longer than all the rest here, and its coefficients cost the same unfitted.
        prior=dataclasses.replace(config.prior, few_step_evaluations=()),
        vae_training=short(config.vae_training),
        prior_training=short(config.prior_training),
    )
    model = ScLDM(settings.cells(job.genes), config=config)
    memory.start()
    model.train(accelerator=make_accelerator("auto", cpu=settings.on_cpu))
    model.save(settings.model(job.genes))
    return {"seconds": [], "cells": 0, **memory.result()}


def load_model(settings: Settings, genes: int) -> ScLDM:
    trained = ScLDM.load(settings.model(genes), settings.device).trained
    few_step = {(4, kind): FewStepSolver.midpoint(4) for kind in KINDS}
    return ScLDM.of(dataclasses.replace(trained, few_step=few_step))


def our_request(model: ScLDM, n_cells: int, solver: str) -> GenerationRequest:
    label = model.schema.categorical[0].categories[0]
    return GenerationRequest.build(
        model.schema, n_cells, conditions={CONDITION: label}, guidance=GUIDANCE, solver=solver
    )


def measure_our_sampling(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    # Enough cells that opening and closing the file, once for any number, is not what is measured.
    n_cells = max(job.batch, 1024 if job.system.endswith("few_step") else 256)
    memory.start()
    model = load_model(settings, job.genes)
    request = our_request(model, n_cells, job.system.removeprefix("scldm, "))
    path = Path(settings.work) / "sampled.h5ad"

    def sample(request: GenerationRequest) -> None:
        model.sample_to_file(path, request, batch_size=job.batch, overwrite=True)

    sample(our_request(model, n_cells, "few_step"))
    seconds = timed(settings, functools.partial(sample, request), min(settings.repeats, 3), warm_ups=0)
    with_counts = ad.read_h5ad(path)
    expressed = float(with_counts.X.getnnz() / with_counts.n_obs)
    return {"seconds": seconds, "cells": n_cells, "expressed_genes": expressed, **memory.result()}


def our_field(settings: Settings, prior: DiT, n_cells: int) -> tuple[Velocity, Tensor]:
    n_attributes = len(prior.attributes.tables)
    names = tuple(f"attribute_{k}" for k in range(n_attributes))
    codes = torch.zeros(n_cells, n_attributes, dtype=torch.int64, device=settings.device)
    numbers = torch.zeros(n_cells, 0, device=settings.device)
    plan = Guidance.joint(GUIDANCE).plan(names, names)
    state = torch.randn(n_cells, prior.state_size, device=settings.device)
    return guided_field(prior, codes, numbers, plan), state


def measure_our_latents(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    memory.start()
    prior = load_model(settings, job.genes).trained.prior
    field, state = our_field(settings, prior, job.batch)

    @torch.inference_mode()
    def solve() -> None:
        if job.system.endswith("few_step"):
            FewStepSolver.midpoint(4)(field, state)
        else:
            heun(field, state, time_grid(25))

    with torch.inference_mode():
        field(state, 0.5)
    seconds = timed(settings, solve, min(settings.repeats, 2), warm_ups=0)
    return {"seconds": seconds, "cells": job.batch, **memory.result()}

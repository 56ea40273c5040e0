"""A whole training: split, autoencoder, latents of every cell, prior; from cells to a trained model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from safetensors.torch import load_file

from scldm.config import RunConfig
from scldm.data.labels import factorize_labels
from scldm.data.source import CellDataset, CellSource
from scldm.data.split import split_cells
from scldm.errors import UserError
from scldm.files import atomic_file, remove_directory
from scldm.nn.weights import save_tensors
from scldm.prior.dit import DiT
from scldm.prior.few_step.fit import fit_to_prior
from scldm.prior.few_step.solver import FewStepSolvers
from scldm.prior.few_step.stored import collect_few_step, few_step_tensors
from scldm.prior.latents import LatentStore
from scldm.prior.objective import PriorObjective
from scldm.seals import write_sealed
from scldm.seeds import seeded_modules
from scldm.tasks.representation import encoded_blocks
from scldm.torch_state import own_torch_defaults
from scldm.trained import TrainedModel, TrainingSummary, build_prior, build_vae, dispersion_attribute
from scldm.training.finished import read_if_whole, train_unless_finished
from scldm.training.tracking import MetricsLog
from scldm.training.workspace import open_workspace
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective

__all__ = ["identity", "kept_if_of_use", "split_source", "train_model"]


def split_source(source: CellSource, config: RunConfig) -> tuple[CellSource, CellSource]:
    """Split cells into those to train on and those that decide when to stop, by labels or whole groups.

    Raises
    ------
    UserError
        If the labels or groups allow no such split.
    """
    data = config.data
    codes = pd.DataFrame({name: factorize_labels(source.obs[name])[0] for name in data.conditions})
    labels = codes.astype(str).agg("/".join, axis=1) if data.conditions else None
    training, validation = split_cells(
        source.n_cells,
        fraction=data.validation_fraction,
        seed=config.seed,
        stratify_by=None if labels is None else labels.to_numpy(),
        group_by=None if data.group_by is None else source.obs[data.group_by],
    )
    return source.subset(training), source.subset(validation)


def identity(config: RunConfig, source: CellSource) -> dict[str, Any]:
    """Return everything that determines the outcome of a training, as JSON: only the same run continues another.

    Where the cells are, and in what form they are stored, is not among it; what they are is.
    """
    return {"config": config.outcome(), "cells": source.fingerprints(), "schema": source.schema.to_dict()}


@own_torch_defaults()
def train_model(
    source: CellSource,
    config: RunConfig,
    work: Path,
    accelerator: Accelerator,
    on_step: Callable[[str, int], None] | None = None,
) -> TrainedModel:
    """Train both stages, or continue where an earlier run in ``work`` stopped.

    Parameters
    ----------
    source
        All cells.
    config
        The whole run.
    work
        Directory for checkpoints, latents, ``metrics.jsonl`` and, of a backed file, unpacked counts.
    accelerator
        Where to train; all its processes call this.
    on_step
        Called with the stage's name and the number of steps done after every step.

    Raises
    ------
    UserError
        If the cells allow no validation split, the batch cannot be shared by the processes, training diverges, or
        ``work`` holds something else than an unfinished training of this model on these data.
    """
    open_workspace(work, identity(config, source), accelerator)
    metrics = work / "metrics.jsonl"
    log = MetricsLog(metrics if accelerator.is_main_process else None, config.tracking, config.to_dict())
    if config.data.unpack:
        source = _unpack_once(source, work / "counts", accelerator)
    schema, (training, validation) = source.schema, split_source(source, config)

    common: dict[str, Any] = {
        "seed": config.seed,
        "seeding": config.seeding,
        "directory": work,
        "log": log,
        "accelerator": accelerator,
        "on_step": on_step,
    }
    totals = training.gene_totals()
    with seeded_modules(config.seed, "vae/weights", config.seeding):
        vae = build_vae(config, schema, totals)
    vae_objective = VAEObjective(vae, dispersion_attribute(config, schema), training.n_cells)
    cells = CellDataset(training), CellDataset(validation)
    vae_summary = train_unless_finished("vae", vae_objective, *cells, config.vae_training, **common)

    latents = _encode_once(vae, training, work / "latents-training", accelerator)
    validation_latents = _encode_once(vae, validation, work / "latents-validation", accelerator)

    # Another seed, because the 32-bit kind takes no notice of the purpose.
    with seeded_modules(config.seed + 1, "prior/weights", config.seeding):
        prior = build_prior(config, schema)
    prior_objective = PriorObjective(prior, latents.statistics, config.prior)
    stores = latents, validation_latents
    prior_summary = train_unless_finished("prior", prior_objective, *stores, config.prior_training, **common)
    few_step = _fit_once(prior, latents, config, work / "few-step.safetensors", accelerator)
    log.close()
    summary = TrainingSummary(
        n_training_cells=training.n_cells,
        n_validation_cells=validation.n_cells,
        processes=accelerator.num_processes,
        device=str(accelerator.device),
        vae=vae_summary,
        prior=prior_summary,
    )
    lines = metrics.read_text(encoding="utf-8") if accelerator.is_main_process else ""
    model = TrainedModel(config, schema, vae, prior, latents.statistics, summary, few_step, lines)
    return model.to(accelerator.device)


@contextlib.contextmanager
def kept_if_of_use(work: Path, continuing: bool, accelerator: Accelerator) -> Iterator[None]:
    """Train in a directory from which the same command continues, and remove it where that would be of no use.

    Parameters
    ----------
    work
        The working directory.
    continuing
        Whether it held a run before; such a one is always kept.
    accelerator
        All its processes enter; the main one removes.

    Raises
    ------
    UserError
        From the training; or if a file in ``work`` is damaged.
    """
    try:
        yield
    except UserError:
        # The training would stop at the same place again.
        if accelerator.is_main_process and not continuing:
            remove_directory(work)
        raise


def _unpack_once(source: CellSource, directory: Path, accelerator: Accelerator) -> CellSource:
    if source.store.locality is None:
        return source
    seal = directory / "seal.json"
    if read_if_whole(seal, accelerator) is None and accelerator.is_main_process:
        source.unpack(directory)
        write_sealed(seal, {}, [path for path in directory.iterdir() if path.is_file()])
    accelerator.wait_for_everyone()
    return source.unpacked(directory)


def _fit_once(
    prior: DiT, latents: LatentStore, config: RunConfig, path: Path, accelerator: Accelerator
) -> FewStepSolvers:
    seal = path.with_suffix(".json")
    if read_if_whole(seal, accelerator) is None and accelerator.is_main_process:
        fitted = fit_to_prior(prior.to(accelerator.device), latents, config.prior, config.seed, config.seeding)
        with atomic_file(path) as partial:
            save_tensors(few_step_tensors(fitted), partial)
        write_sealed(seal, {}, [path])
    accelerator.wait_for_everyone()
    return collect_few_step(load_file(path), prior.state_size)


def _encode_once(vae: VAE, cells: CellSource, directory: Path, accelerator: Accelerator) -> LatentStore:
    # Every process waits for the one that writes; the file system is theirs in common, as the model directory is.
    seal = directory / "seal.json"
    if read_if_whole(seal, accelerator) is None and accelerator.is_main_process:
        vae = vae.to(accelerator.device).eval()
        LatentStore.write(directory, encoded_blocks(vae, cells, use_attributes=True), cells.n_cells)
        write_sealed(seal, {}, [path for path in directory.iterdir() if path != seal and path.is_file()])
    accelerator.wait_for_everyone()
    return LatentStore(directory)

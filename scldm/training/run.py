"""A whole training: split, autoencoder, latents of every cell, prior."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from scldm.config import RunConfig
from scldm.data.backed import BackedSource
from scldm.data.sampler import CellDataset
from scldm.data.source import CellSource
from scldm.data.split import split_cells
from scldm.data.unpacked import UnpackedRows
from scldm.networks import build_prior, build_vae, dispersion_attribute
from scldm.nn.objective import Objective
from scldm.prior.dit import DiT
from scldm.prior.few_step.fit import fit_to_prior
from scldm.prior.few_step.solver import FewStepSolvers
from scldm.prior.few_step.stored import collect_few_step, few_step_tensors
from scldm.prior.latents import EncodedCells, LatentStatistics, LatentStore
from scldm.prior.objective import PriorObjective
from scldm.training.finished import train_unless_finished
from scldm.training.tracking import MetricsLog
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective

__all__ = ["ENCODE_BATCH", "TrainedNetworks", "encoded_blocks", "split_source", "train_networks"]

ENCODE_BATCH = 512


@dataclass(frozen=True, eq=False)
class TrainedNetworks:
    """What a training leaves.

    Attributes
    ----------
    vae, prior
        With averaged weights.
    statistics
        Standardisation of the latents.
    few_step
        Solvers fitted to the prior, by their number of evaluations and the kind of field.
    vae_summary, prior_summary
        How each stage ended, see :class:`scldm.training.stage.StageResult`.
    n_training_cells, n_validation_cells
        Numbers of cells.
    """

    vae: VAE
    prior: DiT
    statistics: LatentStatistics
    few_step: FewStepSolvers
    vae_summary: dict[str, Any]
    prior_summary: dict[str, Any]
    n_training_cells: int
    n_validation_cells: int


def split_source(source: CellSource, config: RunConfig) -> tuple[CellSource, CellSource]:
    """Split cells into those to train on and those that decide when to stop, by labels or whole groups.

    Raises
    ------
    UserError
        If the labels or groups allow no such split.
    """
    data = config.data
    labels = source.obs[list(data.conditions)].astype(str).agg("/".join, axis=1) if data.conditions else None
    training, validation = split_cells(
        source.n_cells,
        fraction=data.validation_fraction,
        seed=config.seed,
        stratify_by=None if labels is None else labels.to_numpy(),
        group_by=None if data.group_by is None else source.obs[data.group_by],
    )
    return source.subset(training), source.subset(validation)


def train_networks(
    source: CellSource,
    config: RunConfig,
    work: Path,
    log: MetricsLog,
    accelerator: Accelerator,
    on_step: Callable[[str, int], None] | None = None,
) -> TrainedNetworks:
    """Train both stages, or continue where an earlier run in ``work`` stopped.

    Parameters
    ----------
    source
        All cells.
    config
        The whole run.
    work
        Directory for checkpoints, latents and, of a backed file, unpacked counts.
    log, accelerator
        See :func:`scldm.training.stage.train_stage`.
    on_step
        Called with the stage's name and the number of steps done after every step.
    """
    if isinstance(source, BackedSource) and config.data.unpack:
        source = _unpack_once(source, work / "counts", accelerator)
    training, validation = split_source(source, config)

    def stage(name: str, objective: Objective, training_data: Any, validation_data: Any) -> dict[str, Any]:
        return train_unless_finished(
            name,
            objective,
            training_data,
            validation_data,
            config.vae_training if name == "vae" else config.prior_training,
            seed=config.seed,
            seeding=config.seeding,
            directory=work,
            log=log,
            accelerator=accelerator,
            on_step=on_step,
        )

    torch.manual_seed(config.seed)
    vae = build_vae(config, source.schema, training.gene_totals())
    vae_objective = VAEObjective(vae, dispersion_attribute(config, source.schema), training.n_cells)
    vae_summary = stage("vae", vae_objective, CellDataset(training), CellDataset(validation))

    latents = _encode_once(vae, training, work / "latents-training", accelerator)
    validation_latents = _encode_once(vae, validation, work / "latents-validation", accelerator)

    torch.manual_seed(config.seed + 1)
    prior = build_prior(config, source.schema)
    prior_objective = PriorObjective(prior, latents.statistics, config.prior)
    prior_summary = stage("prior", prior_objective, latents, validation_latents)
    few_step = _fit_once(prior, latents, config, work / "few-step.safetensors", accelerator)
    return TrainedNetworks(
        vae, prior, latents.statistics, few_step, vae_summary, prior_summary, training.n_cells, validation.n_cells
    )


def encoded_blocks(
    vae: VAE, cells: CellSource, batch_size: int = ENCODE_BATCH, *, use_attributes: bool
) -> Iterator[EncodedCells]:
    """Encode cells batch by batch.

    Parameters
    ----------
    vae
        Trained, in evaluation mode.
    cells
        In the gene order of the model.
    batch_size
        Cells encoded at a time.
    use_attributes
        Whether the encoder is told the attributes of the cells, as far as they are known.
    """
    device = next(vae.parameters()).device
    for start in range(0, cells.n_cells, batch_size):
        batch = cells.batch(np.arange(start, min(start + batch_size, cells.n_cells)))
        seen = batch if use_attributes else batch.hide_attributes()
        mean, log_variance = vae.encode_arrays(seen.to(device))
        depth = cells.schema.depth.to_normal(batch.library_size.numpy()).astype(np.float32)
        yield EncodedCells(mean, log_variance, depth, batch.categorical.numpy(), batch.continuous.numpy())


def _unpack_once(source: BackedSource, directory: Path, accelerator: Accelerator) -> CellSource:
    if accelerator.is_main_process and not UnpackedRows.is_complete(directory):
        source.unpack(directory)
    accelerator.wait_for_everyone()
    return source.unpacked(directory)


def _fit_once(
    prior: DiT, latents: LatentStore, config: RunConfig, path: Path, accelerator: Accelerator
) -> FewStepSolvers:
    if accelerator.is_main_process and not path.is_file():
        fitted = fit_to_prior(prior.to(accelerator.device), latents, config.prior, config.seed, config.seeding)
        partial = path.with_suffix(".partial")
        save_file(few_step_tensors(fitted), partial)
        os.replace(partial, path)
    accelerator.wait_for_everyone()
    return collect_few_step(load_file(path), prior.state_size)


def _encode_once(vae: VAE, cells: CellSource, directory: Path, accelerator: Accelerator) -> LatentStore:
    # Every process waits for the one that writes; the file system is theirs in common, as the model directory is.
    if accelerator.is_main_process and not LatentStore.is_complete(directory):
        vae = vae.to(accelerator.device).eval()
        LatentStore.write(directory, encoded_blocks(vae, cells, use_attributes=True), cells.n_cells)
    accelerator.wait_for_everyone()
    return LatentStore(directory)

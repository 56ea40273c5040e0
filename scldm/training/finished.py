"""Training a stage only once: its result is kept, and read when the run is repeated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file
from torch.utils.data import Dataset

from scldm.files import atomic_file
from scldm.nn.objective import Objective
from scldm.nn.weights import load_network, network_tensors, save_tensors
from scldm.seals import DamagedFileError, read_sealed, write_sealed
from scldm.seeds import Seeding
from scldm.training.config import TrainingConfig
from scldm.training.stage import train_stage
from scldm.training.tracking import MetricsLog

__all__ = ["read_if_whole", "train_unless_finished"]


def train_unless_finished(
    name: str,
    objective: Objective,
    training_data: Dataset[Any],
    validation_data: Dataset[Any],
    config: TrainingConfig,
    *,
    seed: int,
    seeding: Seeding,
    accelerator: Accelerator,
    directory: Path,
    log: MetricsLog,
    on_step: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Train a stage, or load its result when an earlier run in ``directory`` finished it.

    Parameters
    ----------
    name
        Of the stage; names its files, ``NAME.safetensors``, ``NAME.json`` and ``NAME-checkpoint``.
    objective, training_data, validation_data, config, seed, seeding, accelerator, log
        See :func:`scldm.training.stage.train_stage`.
    directory
        Working directory of the run.
    on_step
        Called with ``name`` and the number of steps done after every step.

    Returns
    -------
    How the stage ended, the fields of :class:`scldm.training.stage.StageResult`.
    """
    weights, seal = directory / f"{name}.safetensors", directory / f"{name}.json"
    summary: dict[str, Any] | None = read_if_whole(seal, accelerator)
    if summary is not None:
        load_network(objective.network, load_file(weights), weights.name)
        return summary
    result = train_stage(
        name,
        objective,
        training_data,
        validation_data,
        config,
        seed=seed,
        seeding=seeding,
        accelerator=accelerator,
        directory=directory / f"{name}-checkpoint",
        log=log,
        on_step=None if on_step is None else lambda step: on_step(name, step),
    )
    summary = vars(result)
    if accelerator.is_main_process:
        with atomic_file(weights) as partial:
            save_tensors(network_tensors(objective.network), partial)
        write_sealed(seal, summary, [weights])
    accelerator.wait_for_everyone()
    return summary


def read_if_whole(seal: Path, accelerator: Accelerator) -> Any:
    """Read the sealed result of a part of a run; None if there is none, or one that has to be made again.

    What is damaged is said and taken for not made: the run comes to the same end without it. All processes call this,
    and look before one of them writes.
    """
    content = None
    if seal.is_file():
        try:
            content = read_sealed(seal)
        except DamagedFileError as error:
            if accelerator.is_main_process:
                warnings.warn(f"{error}; this part of the run is made again", UserWarning, stacklevel=3)
    accelerator.wait_for_everyone()
    return content

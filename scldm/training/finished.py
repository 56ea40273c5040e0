"""Training a stage only once: its result is kept, and read when the run is repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

from scldm.files import atomic_file
from scldm.nn.objective import Objective
from scldm.nn.weights import load_network, network_tensors
from scldm.seeds import Seeding
from scldm.training.config import TrainingConfig
from scldm.training.stage import train_stage
from scldm.training.tracking import MetricsLog

__all__ = ["train_unless_finished"]


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
        Of the stage; names its files, ``NAME.safetensors`` and ``NAME-checkpoint``.
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
    finished = directory / f"{name}.safetensors"
    if finished.is_file():
        with safe_open(finished, framework="pt") as file:
            summary: dict[str, Any] = json.loads(file.metadata()["summary"])
        load_network(objective.network, load_file(finished), finished.name)
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
        with atomic_file(finished) as partial:
            save_file(network_tensors(objective.network), partial, metadata={"summary": json.dumps(summary)})
    accelerator.wait_for_everyone()
    return summary

"""A stage of training as a whole: train it once, keep its result, and take it from there when the run is repeated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset

from scldm.config import RunConfig
from scldm.nn.objective import Objective
from scldm.nn.weights import load_network, network_tensors
from scldm.training.loop import train_stage
from scldm.training.tracking import MetricsLog

__all__ = ["run_stage"]


def run_stage(
    name: str,
    objective: Objective,
    training_data: Dataset[Any],
    validation_data: Dataset[Any],
    config: RunConfig,
    *,
    directory: Path,
    log: MetricsLog,
    accelerator: Accelerator,
    on_step: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    """Train a stage, or load its result when an earlier run in ``directory`` finished it.

    Parameters
    ----------
    name
        ``"vae"`` or ``"prior"``; names the section of the configuration and the files.
    objective, training_data, validation_data, log, accelerator
        See :func:`scldm.training.loop.train_stage`.
    config
        The whole run.
    directory
        Working directory of the run.
    on_step
        Called with ``name`` and the number of steps done after every step.

    Returns
    -------
    How the stage ended, the fields of :class:`scldm.training.loop.StageResult`.
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
        config.vae_training if name == "vae" else config.prior_training,
        seed=config.seed,
        accelerator=accelerator,
        directory=directory / f"{name}-checkpoint",
        log=log,
        on_step=None if on_step is None else lambda step: on_step(name, step),
    )
    summary = vars(result)
    if accelerator.is_main_process:
        partial = finished.with_suffix(".partial")
        save_file(network_tensors(objective.network), partial, metadata={"summary": json.dumps(summary)})
        os.replace(partial, finished)
    accelerator.wait_for_everyone()
    return summary

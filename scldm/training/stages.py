"""A stage of training as a whole: train it once, keep its result, and take it from there when the run is repeated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from scldm.config import RunConfig
from scldm.errors import UserError
from scldm.nn.objective import Objective
from scldm.training.loop import train_stage
from scldm.training.tracking import MetricsLog

__all__ = ["load_network", "network_tensors", "run_stage"]


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
        seeding=config.seeding,
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


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Weights by name on the CPU; a weight shared by two modules appears once."""
    return {name: p.detach().cpu().contiguous() for name, p in network.named_parameters()}


@torch.no_grad()
def load_network(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Copy weights into a network; names and shapes have to agree exactly.

    Raises
    ------
    UserError
        If they do not; ``where`` names the file in the message.
    """
    expected = dict(network.named_parameters())
    for name in sorted(expected.keys() ^ weights.keys()):
        what = "is missing from" if name in expected else "is not expected in"
        raise UserError(f"the weight '{name}' {what} {where}; the file does not belong to this configuration.")
    for name, parameter in expected.items():
        if parameter.shape != weights[name].shape:
            raise UserError(
                f"the weight '{name}' in {where} has shape {tuple(weights[name].shape)}, the configuration asks for "
                f"{tuple(parameter.shape)}."
            )
        parameter.copy_(weights[name])

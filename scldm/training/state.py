"""Everything that changes while a stage trains, and the checkpoints from which it resumes exactly."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from scldm.files import atomic_file
from scldm.nn.objective import Objective
from scldm.nn.weights import copy_weights, save_tensors
from scldm.seals import read_sealed, write_sealed
from scldm.training.config import TrainingConfig
from scldm.training.ema import ExponentialMovingAverage
from scldm.training.losses import RunningLosses

__all__ = ["Checkpoint", "StageState", "load_checkpoint", "save_checkpoint"]

POINTER = "checkpoint.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a stage after a step of its optimiser, as it is stored.

    Attributes
    ----------
    tensors
        Every tensor of the state by group: ``model``, ``ema``, ``best``, ``optimizer``, ``running``.
    progress
        Everything else, as JSON: steps, best validation loss and so on.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    progress: Mapping[str, Any]


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Replace the checkpoint in ``directory``; a kill at any moment leaves the old one or the new one, whole."""
    flat = {
        f"{group}/{name}": tensor.detach().contiguous()
        for group, tensors in checkpoint.tensors.items()
        for name, tensor in tensors.items()
    }
    tensor_file = directory / f"step-{checkpoint.progress['step']:09d}.safetensors"
    with atomic_file(tensor_file) as partial:
        save_tensors(flat, partial)
    # The JSON names its tensor file, so the pair changes in the instant in which the JSON is renamed.
    content = {"tensors": tensor_file.name, "progress": dict(checkpoint.progress)}
    write_sealed(directory / POINTER, content, [tensor_file])
    for old in directory.iterdir():
        # Older checkpoints, and what a process that was killed had begun to write.
        if old.name.startswith(("step-", ".step-")) and old != tensor_file:
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def load_checkpoint(directory: Path, device: torch.device | str = "cpu") -> Checkpoint | None:
    """Read the checkpoint in ``directory``; None if there is none. Raises ``DamagedFileError`` if it is damaged."""
    pointer = directory / POINTER
    if not pointer.is_file():
        return None
    content = read_sealed(pointer)
    tensors: dict[str, dict[str, Tensor]] = {}
    # Read on the CPU: the names that accelerate has for devices, such as "cpu:0", are not those of safetensors.
    for key, tensor in load_file(directory / content["tensors"]).items():
        group, name = key.split("/", 1)
        tensors.setdefault(group, {})[name] = tensor.to(device)
    return Checkpoint(tensors, content["progress"])


class StageState:
    """Weights, optimiser, average, best validation and progress of a stage.

    Parameters
    ----------
    objective
        On the device where it trains.
    config
        Of the optimiser and of the average.

    Attributes
    ----------
    step
        Steps of the optimiser so far.
    best
        Averaged weights of the best validation, if they are to be kept.
    best_loss, best_cells
        Lowest validation loss, and the cells trained on when it was reached; infinity and 0 before the first.
    running
        Losses since the last line of the log.
    """

    def __init__(self, objective: Objective, config: TrainingConfig) -> None:
        self.objective = objective
        device = next(objective.parameters()).device
        self.optimizer = torch.optim.AdamW(
            objective.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.ema = ExponentialMovingAverage(objective.network, config.ema_decay)
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.best_loss, self.best_cells = math.inf, 0
        self.running = RunningLosses()

    def checkpoint(self) -> Checkpoint:
        """Return the state as it is stored; the tensors are those that go on changing."""
        moments = {
            f"{i}/{key}": value
            for i, parameter in enumerate(self.objective.parameters())
            for key, value in self.optimizer.state[parameter].items()
        }
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": dict(self.objective.named_parameters()),
            "ema": self.ema.parameters,
            "best": self.best,
            "optimizer": moments,
            "running": self.running.sums,
        }
        progress = {
            "step": self.step,
            "ema_steps": self.ema.steps,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "best_cells": self.best_cells,
            "running_cells": self.running.n_cells,
        }
        return Checkpoint(tensors, progress)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint, *, with_running_losses: bool) -> None:
        """Take over a stored state.

        Parameters
        ----------
        checkpoint
            On the device where the stage trains.
        with_running_losses
            Whether the stored sums of losses are those of all processes.
        """
        tensors, progress = checkpoint.tensors, checkpoint.progress
        copy_weights(self.objective, tensors["model"])
        for name, average in self.ema.parameters.items():
            average.copy_(tensors["ema"][name])
        for i, parameter in enumerate(self.objective.parameters()):
            moments = {k.split("/", 1)[1]: v for k, v in tensors["optimizer"].items() if k.startswith(f"{i}/")}
            self.optimizer.state[parameter] = moments
        self.best = dict(tensors.get("best", {}))
        if with_running_losses:
            self.running = RunningLosses(tensors.get("running"), progress["running_cells"])
        self.step, self.ema.steps, self.best_cells = progress["step"], progress["ema_steps"], progress["best_cells"]
        self.best_loss = math.inf if progress["best_loss"] is None else progress["best_loss"]

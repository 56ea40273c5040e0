"""The one training loop, for both stages.

Everything random in a step is drawn for the whole global batch from (seed, stage, step) and then cut into the parts of
the processes and of the accumulated batches. So neither the number of processes nor a kill and a resume changes what is
trained on, up to the rounding of sums.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scldm.data.sampler import BatchIndices, EpochOrder
from scldm.errors import UserError
from scldm.nn.objective import Noise, Objective
from scldm.seeds import Seeding, generator, seed_modules
from scldm.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from scldm.training.config import TrainingConfig
from scldm.training.ema import ExponentialMovingAverage
from scldm.training.tracking import MetricsLog

__all__ = ["StageResult", "make_accelerator", "train_stage"]


@runtime_checkable
class Batch(Protocol):
    """What the loop needs of a batch: :class:`~scldm.data.CellBatch` and ``LatentBatch`` both are one."""

    @property
    def n_cells(self) -> int: ...

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any: ...

    def slice(self, start: int, stop: int) -> Any: ...


@dataclass(frozen=True)
class StageResult:
    """How a stage ended.

    Attributes
    ----------
    cells
        Cells trained on.
    best_loss, best_cells
        Lowest validation loss, and the cells trained on when it was reached.
    stopped_early
        Whether validation stopped improving before ``TrainingConfig.cells`` were reached.
    """

    cells: int
    best_loss: float
    best_cells: int
    stopped_early: bool


def make_accelerator(precision: str = "auto", *, cpu: bool = False) -> Accelerator:
    """Return the accelerator of this process.

    Parameters
    ----------
    precision
        ``float32``, ``bf16``, or ``auto``: bf16 where a GPU has it.
    cpu
        Leave a GPU alone.

    Raises
    ------
    UserError
        If several processes were started but accelerate does not join them.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # Without a GPU, accelerate joins the processes of torchrun only when told that they compute on the CPU; otherwise
    # each of them would be a run of its own, writing to the same places. Apple's GPU counts as none: it lacks kernels
    # that the embedding bags and the counts need.
    cpu = cpu or not (torch.cuda.is_available() or torch.xpu.is_available())
    bf16 = precision == "bf16" or (
        precision == "auto" and not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    # accelerate holds one precision for the whole Python process; a second model may ask for another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")
    if accelerator.num_processes != processes:
        raise UserError(
            f"{processes} processes were started, but each sees {accelerator.num_processes}; start them with "
            "'accelerate launch -m scldm' on GPUs, or 'torchrun -m scldm' on CPUs"
        )
    return accelerator


def learning_rate_factor(config: TrainingConfig, cells: int) -> float:
    """Learning rate as a share of its peak after ``cells`` cells: linear warm-up, then cosine to zero or constant."""
    if cells < config.warmup_cells:
        return (cells + config.batch_size) / (config.warmup_cells + config.batch_size)
    if config.decay == "constant":
        return 1.0
    progress = (cells - config.warmup_cells) / max(1, config.cells - config.warmup_cells)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train_stage(
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
    on_step: Callable[[int], None] | None = None,
) -> StageResult:
    """Train ``objective`` and leave its network with averaged weights, the best or the last as configured.

    Parameters
    ----------
    name
        Of the stage, in metrics and on the progress bar.
    objective
        On the CPU; moved to the accelerator's device.
    training_data, validation_data
        ``data[indices]`` is a batch.
    config
        Lengths in cells, batch size over all processes.
    seed
        Together with ``name`` and the step, the source of all randomness.
    directory
        Where the stage's checkpoint lives; a checkpoint found there is resumed.
    log
        Receives training and validation losses.
    on_step
        Called with the number of steps done after every step.

    Raises
    ------
    UserError
        If the batch cannot be shared by the processes.
    """
    run = _StageRun(name, objective, training_data, validation_data, config, seed, seeding, accelerator, directory, log)
    return run.execute(on_step)


class _StageRun:
    """The state of a stage while it trains."""

    def __init__(
        self,
        name: str,
        objective: Objective,
        training_data: Any,
        validation_data: Any,
        config: TrainingConfig,
        seed: int,
        seeding: Seeding,
        accelerator: Accelerator,
        directory: Path,
        log: MetricsLog,
    ) -> None:
        self.name, self.config, self.seed, self.seeding = name, config, seed, seeding
        self.accelerator, self.directory, self.log = accelerator, directory, log
        self.validation_data = validation_data
        self.order = EpochOrder(
            len(training_data), config.batch_size, seed, accelerator.process_index, accelerator.num_processes
        )
        pieces = accelerator.num_processes * config.gradient_accumulation
        if self.order.batch_size % pieces:
            raise UserError(
                f"the batch of {self.order.batch_size} cells cannot be cut into {pieces} equal parts "
                f"({accelerator.num_processes} processes x {config.gradient_accumulation} accumulated batches); "
                "use another batch size"
            )
        self.total_steps = math.ceil(config.cells / self.order.batch_size)
        self.training_data = training_data
        self.objective = objective.to(accelerator.device)
        if config.compile:
            # In place: torch.compile(module) would prefix every parameter's name with _orig_mod.
            self.objective.compile()
        self.optimizer = torch.optim.AdamW(
            self.objective.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )
        self.model = accelerator.prepare_model(self.objective) if accelerator.num_processes > 1 else self.objective
        self.ema = ExponentialMovingAverage(self.objective.network, config.ema_decay)
        self.best: dict[str, Tensor] = {}
        self.best_loss, self.best_cells, self.step = math.inf, 0, 0
        # Loss sums since the last log line, kept on the device so that no step waits for it.
        self.running: dict[str, Tensor] = {}
        self.running_cells = 0

    @property
    def cells(self) -> int:
        """Cells that the stage has been trained on so far, over all processes."""
        return self.step * self.order.batch_size

    def execute(self, on_step: Callable[[int], None] | None) -> StageResult:
        """Train from the last checkpoint to the end, and leave the weights that are to be kept in the network."""
        self._resume()
        bar = tqdm(
            total=self.total_steps * self.order.batch_size,
            initial=self.cells,
            unit="cell",
            unit_scale=True,
            desc=self.name,
            disable=not (self.accelerator.is_main_process and sys.stderr.isatty()),
        )
        started, cells_before = time.perf_counter(), self.cells
        for batch in self._batches():
            if self._patience_is_out():
                break
            self._train_step(batch)
            bar.update(self.order.batch_size)
            if self._due(self.config.validate_every) or self.step == self.total_steps:
                speed = (self.cells - cells_before) / (time.perf_counter() - started)
                self._validate_and_log(speed, bar)
                started, cells_before = time.perf_counter(), self.cells
            if self._due(self.config.checkpoint_every):
                self._save()
            if on_step is not None:
                on_step(self.step)
        bar.close()
        stopped_early = self.step < self.total_steps
        kept = self.best if self.config.keep == "best" else self.ema.parameters
        with torch.no_grad():
            for parameter_name, parameter in self.objective.network.named_parameters():
                parameter.copy_(kept[parameter_name])
        return StageResult(self.cells, self.best_loss, self.best_cells, stopped_early)

    def _patience_is_out(self) -> bool:
        if not self.config.patience or not self.best_cells:
            # Before the first validation there is nothing to compare with.
            return False
        waited = self.cells - self.best_cells
        return waited > self.config.patience * max(self.best_cells, self.config.warmup_cells)

    def _due(self, every: int) -> bool:
        return self.cells // every > (self.cells - self.order.batch_size) // every

    def _batches(self) -> Iterator[Batch]:
        indices = BatchIndices(self.order, step=self.step, n_batches=self.total_steps - self.step)
        device = self.accelerator.device
        loader: DataLoader[Any] = DataLoader(
            self.training_data,
            sampler=indices,
            batch_size=None,
            num_workers=self.config.data_workers,
            pin_memory=device.type == "cuda",
        )
        for batch in loader:
            yield batch.to(device, non_blocking=True)

    def _train_step(self, batch: Batch) -> None:
        config, accelerator = self.config, self.accelerator
        factor = learning_rate_factor(config, self.cells)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        noise = self._noise(self.step, self.order.batch_size, accelerator.process_index, accelerator.num_processes)
        # nn.Dropout draws from the global generator: it follows the step too, or a resumed run would go another way.
        seed_modules(self.seed, f"{self.name}/modules/{accelerator.process_index}", self.step, self.seeding)
        micro = batch.n_cells // config.gradient_accumulation
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(config.gradient_accumulation):
            start, stop = part * micro, (part + 1) * micro
            last = part == config.gradient_accumulation - 1
            # Gradients cross the network once per step, with the last part.
            with accelerator.no_sync(self.model) if not last else nullcontext(), accelerator.autocast():
                losses = self.model(
                    batch.slice(start, stop) if micro < batch.n_cells else batch,
                    {k: v[start:stop] for k, v in noise.items()},
                )
                loss = losses["loss"].mean() / config.gradient_accumulation
            loss.backward()
            self._accumulate(losses)
        self._clip_gradients()
        self.optimizer.step()
        self.ema.update(self.objective.network)
        self.step += 1

    def _clip_gradients(self) -> None:
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # A GPU would have to be waited for to know the norm; on the CPU, a pass over all gradients is spared.
        if norm.device.type != "cpu" or not norm <= self.config.clip_norm:
            nn.utils.clip_grads_with_norm_(self.objective.parameters(), self.config.clip_norm, norm)

    def _noise(self, step: int, n_cells: int, part: int, n_parts: int) -> Noise:
        rng = generator(self.seed, self.name, step, self.accelerator.device, self.seeding)
        noise = self.objective.draw_noise(n_cells, rng)
        first, last = n_cells * part // n_parts, n_cells * (part + 1) // n_parts
        return {k: v[first:last] for k, v in noise.items()}

    def _accumulate(self, losses: Mapping[str, Tensor]) -> None:
        for key, value in losses.items():
            value = value.detach().sum()
            self.running[key] = self.running[key] + value if key in self.running else value
        self.running_cells += losses["loss"].shape[0]

    @torch.no_grad()
    def _validation_losses(self) -> dict[str, float]:
        """Mean losses over the validation cells, with the same noise at every validation."""
        objective, accelerator = self.objective, self.accelerator
        objective.eval()
        n_cells = len(self.validation_data)
        block = max(1, min(self.order.batch_size, 1024))
        sums: dict[str, Tensor] = {}
        for number, start in enumerate(range(0, n_cells, block)):
            cells = np.arange(start, min(start + block, n_cells))
            noise = self.objective.draw_noise(
                len(cells), generator(self.seed, f"{self.name}/validation", number, accelerator.device, self.seeding)
            )
            if number % accelerator.num_processes != accelerator.process_index:
                continue
            with accelerator.autocast():
                losses = objective(self.validation_data[cells].to(accelerator.device), noise)
            for key, value in losses.items():
                sums[key] = sums.get(key, torch.zeros((), device=accelerator.device)) + value.sum()
        if accelerator.num_processes > 1:
            keys = sorted(self.running)
            reduced = accelerator.reduce(
                torch.stack([sums.get(k, torch.zeros((), device=accelerator.device)) for k in keys]), reduction="sum"
            )
            sums = dict(zip(keys, reduced, strict=True))
        return {key: float(value) / n_cells for key, value in sums.items()}

    def _validate_and_log(self, cells_per_second: float, bar: Any) -> None:
        totals = torch.stack(
            [*self.running.values(), torch.tensor(float(self.running_cells), device=self.accelerator.device)]
        )
        if self.accelerator.num_processes > 1:
            totals = self.accelerator.reduce(totals, reduction="sum")
        training = dict(zip(self.running, (totals[:-1] / totals[-1]).tolist(), strict=True))
        self.ema.swap(self.objective.network)
        validation = self._validation_losses()
        if validation["loss"] < self.best_loss:
            self.best_loss, self.best_cells = validation["loss"], self.cells
            if self.config.keep == "best":
                self.best = {n: p.detach().clone() for n, p in self.objective.network.named_parameters()}
        self.ema.swap(self.objective.network)
        if not math.isfinite(validation["loss"]):
            raise UserError(
                f"the validation loss of the {self.name} stage is {validation['loss']} after {self.cells} cells: "
                "training diverged; lower its learning_rate"
            )
        metrics = {f"train_{k}": v for k, v in training.items()} | {f"validation_{k}": v for k, v in validation.items()}
        metrics |= {"learning_rate": self.optimizer.param_groups[0]["lr"], "cells_per_second": cells_per_second}
        self.log.write(self.name, self.step, self.cells, metrics)
        bar.set_postfix({"train": f"{training['loss']:.4g}", "validation": f"{validation['loss']:.4g}"})
        self.running, self.running_cells = {}, 0

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            parameters = list(self.objective.parameters())
            moments = {
                f"{i}/{key}": value
                for i, parameter in enumerate(parameters)
                for key, value in self.optimizer.state[parameter].items()
            }
            tensors: dict[str, Mapping[str, Tensor]] = {
                "model": dict(self.objective.named_parameters()),
                "ema": self.ema.parameters,
                "best": self.best,
                "optimizer": moments,
                "running": self.running,
            }
            progress = {
                "step": self.step,
                "ema_steps": self.ema.steps,
                "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
                "best_cells": self.best_cells,
                "running_cells": self.running_cells,
            }
            save_checkpoint(Checkpoint(tensors, progress), self.directory)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _resume(self) -> None:
        device = self.accelerator.device
        checkpoint = load_checkpoint(self.directory, device)
        if checkpoint is None:
            self.log.rewind(self.name, 0)
            return
        tensors, progress = checkpoint.tensors, checkpoint.progress
        for parameter_name, parameter in self.objective.named_parameters():
            parameter.copy_(tensors["model"][parameter_name])
        for parameter_name, average in self.ema.parameters.items():
            average.copy_(tensors["ema"][parameter_name])
        for i, parameter in enumerate(self.objective.parameters()):
            state = {k.split("/", 1)[1]: v for k, v in tensors["optimizer"].items() if k.startswith(f"{i}/")}
            self.optimizer.state[parameter] = state
        self.best = dict(tensors.get("best", {}))
        # Sums over this log interval are over all processes' cells only in the one-process run.
        self.running = dict(tensors.get("running", {})) if self.accelerator.num_processes == 1 else {}
        self.running_cells = progress["running_cells"] if self.accelerator.num_processes == 1 else 0
        self.step, self.ema.steps, self.best_cells = progress["step"], progress["ema_steps"], progress["best_cells"]
        self.best_loss = math.inf if progress["best_loss"] is None else progress["best_loss"]
        self.log.rewind(self.name, self.step)

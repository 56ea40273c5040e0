"""The one training loop, for both stages.

Everything random in a step is drawn for the whole global batch from (seed, stage, step) and then cut into the parts of
the processes and of the accumulated batches. So neither the number of processes nor a kill and a resume changes what is
trained on, up to the rounding of sums.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scldm.data.order import BatchIndices, EpochOrder
from scldm.errors import UserError
from scldm.nn.objective import Objective
from scldm.nn.weights import copy_weights
from scldm.seals import DamagedFileError
from scldm.seeds import Seeding, torch_rng
from scldm.training.config import TrainingConfig
from scldm.training.distributed import check_batch_can_be_cut, share_of_process
from scldm.training.interruption import (
    asked_to_stop,
    deferred_stops,
    leave_stops_to_the_trainer,
    stop_is_asked_for,
)
from scldm.training.losses import RunningLosses, validation_losses
from scldm.training.schedule import is_due, learning_rate_factor, patience_is_out
from scldm.training.state import StageState, load_checkpoint, save_checkpoint
from scldm.training.tracking import MetricsLog

__all__ = ["StageResult", "train_stage"]


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
    seed, seeding
        Together with ``name`` and the step, the source of all randomness, see :func:`scldm.seeds.torch_rng`.
    directory
        Where the stage's checkpoint lives; a checkpoint found there is resumed.
    log
        Receives training and validation losses.
    on_step
        Called with the number of steps done after every step.

    Raises
    ------
    UserError
        If the batch cannot be shared by the processes, or training diverges.
    StoppedError
        If the process is told to stop (SIGTERM, SIGINT): a checkpoint is written first.
    """
    order = EpochOrder(
        len(training_data),  # type: ignore[arg-type]
        config.batch_size,
        seed,
        accelerator.process_index,
        accelerator.num_processes,
    )
    stage = _Stage(name, objective, order, config, seed, seeding, accelerator, directory, log)
    with deferred_stops(), _errors_of_data_workers():
        return stage.execute(training_data, validation_data, on_step)


class _ErrorsAsItems(Dataset[Any]):
    """Gives a ``UserError`` as an item: a ``DataLoader`` makes a traceback of one that a data worker raises."""

    def __init__(self, items: Dataset[Any]) -> None:
        self.items = items

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.items[index]
        except UserError as error:
            return error


@contextlib.contextmanager
def _errors_of_data_workers() -> Iterator[None]:
    """Say in a sentence that a data worker died, which torch tells in the middle of anything."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # The end of what a worker was sending comes first now and then.
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            f"a data worker died ({' '.join(str(error).split())}); often there is not enough memory: use fewer "
            "data_workers, and the same command goes on from the last checkpoint"
        ) from error


class _Stage:
    """A stage and what it trains with."""

    def __init__(
        self,
        name: str,
        objective: Objective,
        order: EpochOrder,
        config: TrainingConfig,
        seed: int,
        seeding: Seeding,
        accelerator: Accelerator,
        directory: Path,
        log: MetricsLog,
    ) -> None:
        check_batch_can_be_cut(order.batch_size, config.gradient_accumulation, accelerator)
        self.name, self.order, self.config, self.seed, self.seeding = name, order, config, seed, seeding
        self.accelerator, self.directory, self.log = accelerator, directory, log
        self.total_steps = math.ceil(config.cells / order.batch_size)
        self.objective = objective.to(accelerator.device)
        if config.compile:
            # In place: torch.compile(module) would prefix every parameter's name with _orig_mod.
            self.objective.compile()
        self.state = StageState(self.objective, config)
        self.model = accelerator.prepare_model(self.objective) if accelerator.num_processes > 1 else self.objective

    @property
    def cells(self) -> int:
        """Cells that the stage has been trained on so far, over all processes."""
        return self.state.step * self.order.batch_size

    def execute(
        self, training_data: Dataset[Any], validation_data: Dataset[Any], on_step: Callable[[int], None] | None
    ) -> StageResult:
        """Train from the last checkpoint to the end, and leave the weights that are to be kept in the network."""
        self._resume()
        state, config = self.state, self.config
        bar = tqdm(
            total=self.total_steps * self.order.batch_size,
            initial=self.cells,
            unit="cell",
            unit_scale=True,
            desc=self.name,
            disable=not (self.accelerator.is_main_process and sys.stderr.isatty()),
        )
        with contextlib.closing(self._batches(training_data)) as batches:
            self._train_on(batches, validation_data, bar, on_step)
        bar.close()
        copy_weights(self.objective.network, state.best if config.keep == "best" else state.ema.parameters)
        return StageResult(self.cells, state.best_loss, state.best_cells, state.step < self.total_steps)

    def _train_on(
        self,
        batches: Iterator[Batch],
        validation_data: Dataset[Any],
        bar: tqdm[Any],
        on_step: Callable[[int], None] | None,
    ) -> None:
        state, config = self.state, self.config
        started, cells_before = time.perf_counter(), self.cells
        for batch in batches:
            if patience_is_out(config, self.cells, state.best_cells):
                break
            self._train_step(batch)
            bar.update(self.order.batch_size)
            if self._is_due(config.validate_every) or state.step == self.total_steps:
                speed = (self.cells - cells_before) / (time.perf_counter() - started)
                self._validate_and_log(validation_data, speed, bar)
                started, cells_before = time.perf_counter(), self.cells
            stops = stop_is_asked_for(state.step, self.accelerator)
            if stops or self._is_due(config.checkpoint_every):
                self._save()
            if on_step is not None:
                on_step(state.step)
            if stops:
                raise asked_to_stop()

    def _is_due(self, every: int) -> bool:
        return is_due(every, self.cells, self.order.batch_size)

    def _batches(self, training_data: Dataset[Any]) -> Generator[Batch]:
        indices = BatchIndices(self.order, step=self.state.step, n_batches=self.total_steps - self.state.step)
        device = self.accelerator.device
        loader: DataLoader[Any] = DataLoader(
            _ErrorsAsItems(training_data),
            sampler=indices,
            batch_size=None,
            num_workers=self.config.data_workers,
            pin_memory=device.type == "cuda",
            # Or it would take a number from the caller's.
            generator=torch.Generator(),
            worker_init_fn=leave_stops_to_the_trainer,
        )
        batches = iter(loader)
        try:
            for batch in batches:
                if isinstance(batch, UserError):
                    raise batch
                yield batch.to(device, non_blocking=True)
        finally:
            # Not left to the garbage collector: as long as torch knows of a worker that died, it raises an error in the
            # middle of anything that the process does.
            if self.config.data_workers:
                batches._shutdown_workers()  # type: ignore[attr-defined]

    def _train_step(self, batch: Batch) -> None:
        config, accelerator, state = self.config, self.accelerator, self.state
        factor = learning_rate_factor(config, self.cells)
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        rng = torch_rng(self.seed, self.name, state.step, accelerator.device, self.seeding)
        noise = self.objective.draw_noise(self.order.batch_size, rng)
        noise = share_of_process(noise, accelerator.process_index, accelerator.num_processes)
        micro = batch.n_cells // config.gradient_accumulation
        self.model.train()
        state.optimizer.zero_grad(set_to_none=True)
        for part in range(config.gradient_accumulation):
            start, stop = part * micro, (part + 1) * micro
            last = part == config.gradient_accumulation - 1
            # Gradients cross the network once per step, with the last part.
            with accelerator.no_sync(self.model) if not last else contextlib.nullcontext(), accelerator.autocast():
                losses = self.model(
                    batch.slice(start, stop) if micro < batch.n_cells else batch,
                    {k: v[start:stop] for k, v in noise.items()},
                )
                loss = losses["loss"].mean() / config.gradient_accumulation
            loss.backward()
            state.running.add(losses)
        self._clip_gradients()
        state.optimizer.step()
        state.ema.update(self.objective.network)
        state.step += 1

    def _clip_gradients(self) -> None:
        gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # A GPU would have to be waited for to know the norm; on the CPU, a pass over all gradients is spared.
        if norm.device.type != "cpu" or not norm <= self.config.clip_norm:
            nn.utils.clip_grads_with_norm_(self.objective.parameters(), self.config.clip_norm, norm)

    def _validate_and_log(self, validation_data: Dataset[Any], cells_per_second: float, bar: Any) -> None:
        state, network = self.state, self.objective.network
        training = state.running.means(self.accelerator)
        state.ema.swap(network)
        validation = validation_losses(
            self.objective,
            validation_data,
            self.order.batch_size,
            list(training),
            self.name,
            seed=self.seed,
            seeding=self.seeding,
            accelerator=self.accelerator,
        )
        if validation["loss"] < state.best_loss:
            state.best_loss, state.best_cells = validation["loss"], self.cells
            if self.config.keep == "best":
                state.best = {n: p.detach().clone() for n, p in network.named_parameters()}
        state.ema.swap(network)
        if not math.isfinite(validation["loss"]):
            raise UserError(
                f"the validation loss of the {self.name} stage is {validation['loss']} after {self.cells} cells: "
                "training diverged; lower its learning_rate"
            )
        metrics = {f"train_{k}": v for k, v in training.items()} | {f"validation_{k}": v for k, v in validation.items()}
        metrics |= {"learning_rate": state.optimizer.param_groups[0]["lr"], "cells_per_second": cells_per_second}
        self.log.write(self.name, state.step, self.cells, metrics)
        bar.set_postfix({"train": f"{training['loss']:.4g}", "validation": f"{validation['loss']:.4g}"})
        state.running = RunningLosses()

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(self.state.checkpoint(), self.directory)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        try:
            checkpoint = load_checkpoint(self.directory, self.accelerator.device)
        except DamagedFileError as error:
            # From the start it comes to the same end.
            checkpoint = None
            if self.accelerator.is_main_process:
                warnings.warn(f"{error}; the {self.name} stage starts anew", UserWarning, stacklevel=2)
        self.accelerator.wait_for_everyone()
        if checkpoint is not None:
            # The stored sums are those of the main process. With others, the first training loss in the log after a
            # resume is the mean over the cells since the checkpoint only.
            self.state.restore(checkpoint, with_running_losses=self.accelerator.num_processes == 1)
        self.log.rewind(self.name, self.state.step)

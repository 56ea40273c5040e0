"""What is read off while something runs: its seconds, its memory, its operations."""

from __future__ import annotations

import dataclasses
import gc
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from scldm.config import TrainingConfig
from scldm.data.source import CellSource
from scldm.nn.objective import Objective
from scldm.seeds import torch_rng
from scldm.tasks.representation import encoded_blocks
from scldm.training.distributed import make_accelerator
from scldm.training.stage import train_stage
from scldm.training.tracking import MetricsLog
from scldm.vae.model import VAE
from speed_of.job import Settings

FOREVER = 10**9
MIB = 2**20


class Memory:
    """Highest memory from :meth:`start` on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.before = 0.0

    def start(self) -> None:
        gc.collect()
        if self.settings.on_cpu:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")
        else:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / MIB

    def result(self) -> dict[str, float]:
        peak = _status("VmHWM") if self.settings.on_cpu else torch.cuda.max_memory_allocated() / MIB
        return {"peak_mib": peak, "rise_mib": peak - self.before}


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def timed(settings: Settings, work: Callable[[], Any], repeats: int, warm_ups: int = 1) -> list[float]:
    seconds = []
    for _ in range(warm_ups + repeats):
        settings.wait()
        started = time.perf_counter()
        work()
        settings.wait()
        seconds.append(time.perf_counter() - started)
    return seconds[warm_ups:]


class _EnoughError(Exception):
    """Ends a training whose steps have been timed."""


def train_steps(
    settings: Settings, objective: Objective, data: Any, config: TrainingConfig, batch: int, *, n_steps: int,
    warm_ups: int, precision: str = "auto", before_steps: Callable[[], None] = lambda: None,
) -> list[float]:  # fmt: skip
    """Seconds of every step of the product's own loop, everything included that happens between two steps."""
    ends: list[float] = []

    def on_step(step: int) -> None:
        settings.wait()
        ends.append(time.perf_counter())
        if step == warm_ups:
            before_steps()
        if step == warm_ups + n_steps:
            raise _EnoughError

    config = dataclasses.replace(
        config, batch_size=batch, cells=FOREVER, validate_every=FOREVER, checkpoint_every=FOREVER, patience=0
    )
    with tempfile.TemporaryDirectory() as directory, suppress(_EnoughError):
        train_stage(
            "speed", objective, data, data, config, seed=0, seeding="64-bit", directory=Path(directory) / "checkpoint",
            accelerator=make_accelerator(precision, cpu=settings.on_cpu), log=MetricsLog(None),
            on_step=on_step,
        )  # fmt: skip
    return np.diff(ends[warm_ups - 1 :]).tolist()


def step_flops(settings: Settings, objective: Objective, data: Any, batch: int) -> float | None:
    """Floating-point operations of the matrix products of one step, forward and backward."""
    if not settings.count_flops:
        return None
    cells = data[np.arange(batch) % len(data)].to(settings.device)
    noise = objective.draw_noise(batch, torch_rng(0, "flops", 0, settings.device))
    with FlopCounterMode(display=False) as counter:
        objective(cells, noise)["loss"].mean().backward()
    return float(counter.get_total_flops())


def measure_encoding(settings: Settings, vae: VAE, source: CellSource, batch: int, n_batches: int) -> dict[str, Any]:
    vae = vae.to(settings.device).eval()
    cells = source.subset(np.arange(batch * n_batches) % source.n_cells)

    def encode() -> None:
        for _ in encoded_blocks(vae, cells, batch, use_attributes=True):
            pass

    return {"seconds": timed(settings, encode, settings.repeats), "cells": cells.n_cells}

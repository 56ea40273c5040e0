"""Measurement of what reading the cells takes of a training step."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from scldm.data import CellBatch, CellDataset
from scldm.data.source import CellSource
from speed_of.cells import open_cells, our_config
from speed_of.job import Job, Settings
from speed_of.meters import Memory, train_steps
from speed_of.ours import ours_vae


class TimedCells(CellDataset):
    """Cells, and the seconds that reading them took."""

    def __init__(self, source: CellSource) -> None:
        super().__init__(source)
        self.seconds: list[float] = []

    def __getitem__(self, indices: Any) -> CellBatch:
        started = time.perf_counter()
        batch = super().__getitem__(indices)
        self.seconds.append(time.perf_counter() - started)
        return batch


def measure_data(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    source = open_cells(settings, job.genes, backed=job.system.startswith("backed"))
    if job.system.endswith("unpacked"):
        directory = Path(settings.work) / f"counts-{job.genes}"
        shutil.rmtree(directory, ignore_errors=True)
        source.unpack(directory)
        source = source.unpacked(directory)
    memory.start()
    data = TimedCells(source)
    seconds = train_steps(
        settings, ours_vae(source), data, our_config().vae_training, job.batch,
        n_steps=4 * settings.repeats, warm_ups=3, before_steps=data.seconds.clear,
    )  # fmt: skip
    result = {"seconds": seconds, "cells": job.batch, **memory.result()}
    # In the process that trains, a batch is read between two steps and so is a part of the step's time.
    return {**result, "seconds_data": data.seconds, "share": sum(data.seconds) / sum(seconds)}

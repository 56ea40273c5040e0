"""The machine: what it is, and what other programs take of it meanwhile."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from speed_of.job import Settings

#: Threads that wait for each other lose far more to a second program than its share of the processor.
BUSY = "busy machine"


def machine(settings: Settings) -> dict[str, Any]:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": None if settings.on_cpu else torch.cuda.get_device_name(),
        "threads": settings.threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
    }


class Load:
    """What other programs take of the processor from the making of this object on."""

    def __init__(self) -> None:
        self.before = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        jiffies = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        busy = (sum(jiffies[:8]) - jiffies[3] - jiffies[4]) / os.sysconf("SC_CLK_TCK")
        own = sum(os.times()[:4])
        return busy, own, time.perf_counter()

    def of_others(self) -> float:
        """Mean number of cores."""
        busy, own, wall = (b - a for a, b in zip(self.before, self._now(), strict=True))
        return (busy - own) / wall


def is_busy(result: dict[str, Any]) -> bool:
    return bool(result.get("cores_of_others", 0.0) > 0.15)

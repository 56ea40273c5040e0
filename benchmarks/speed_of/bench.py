"""All measurements of a run, each made in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speed_of.job import OURS, Job, Settings
from speed_of.machine import BUSY, Load, is_busy

#: Measured: what a training step of the published layout holds per (cell, gene), and the start of any process.
PUBLISHED_BYTES_PER_ENTRY, PROCESS_BYTES = 3200, 0.6e9


@dataclass
class Bench:
    """Runs measurements, each one once."""

    settings: Settings
    peak_tflops: float | None
    #: Calls :func:`speed_of.worker.worker` with what follows ``--worker``.
    script: str
    results: dict[Job, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def run(self, job: Job) -> dict[str, Any]:
        if job not in self.results:
            self.results[job] = self._run(job)
        return self.results[job]

    def _run(self, job: Job) -> dict[str, Any]:
        if reason := self._too_large(job):
            return {"skipped": reason}
        if job.measure in ("sample", "latents", "growth") and job.system in (*OURS, "cells", "steps"):
            self.run(Job("prepare", "scldm", job.genes, 128))
        if (job.measure, job.system) == ("sample", "published"):
            self._prepare_published(job.genes)
        what = f"{job.measure:8s} {job.system:26s} {job.genes:6d} genes, batch {job.batch:4d}: "
        print(what, end="", file=sys.stderr, flush=True)
        started = time.perf_counter()
        message = json.dumps({"settings": vars(self.settings), "job": vars(job)})
        threads = str(self.settings.threads)
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        }
        load = Load()
        done = subprocess.run(
            [sys.executable, self.script, "--worker", message],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        if done.returncode:
            reason = "killed, out of memory" if done.returncode == -9 else _last_line(done.stderr)
            print(f"failed: {reason}", file=sys.stderr)
            return {"skipped": reason, "stderr": done.stderr[-4000:]}
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        result["cores_of_others"] = load.of_others()
        if result["seconds"] and result["cells"]:
            result["cells_per_second"] = result["cells"] / float(np.median(result["seconds"]))
            print(f"{result['cells_per_second']:9.1f} cells/s", end="", file=sys.stderr)
        if result.get("flops") and self.peak_tflops:
            tflops = result["flops"] / float(np.median(result["seconds"])) / 1e12
            result |= {"tflops": tflops, "utilisation": tflops / self.peak_tflops}
        took = f"  (took {time.perf_counter() - started:.0f} s"
        print(took + (f"; {BUSY})" if is_busy(result) else ")"), file=sys.stderr, flush=True)
        return result

    def _prepare_published(self, genes: int) -> None:
        # Its network never sees genes, so one does for all gene lists.
        if not any((job.measure, job.system) == ("prepare", "published") for job in self.results):
            self.run(Job("prepare", "published", genes, 64))

    def _too_large(self, job: Job) -> str | None:
        if (job.measure, job.system) != ("vae", "published"):
            return None
        needed = PROCESS_BYTES + PUBLISHED_BYTES_PER_ENTRY * job.batch * job.genes
        if self.settings.on_cpu:
            lines = Path("/proc/meminfo").read_text().splitlines()
            available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        else:
            available = torch.cuda.mem_get_info()[0]
        if needed < 0.85 * available:
            return None
        return f"would need about {needed / 2**30:.0f} GiB of {available / 2**30:.0f} GiB"

    def speed(self, measure: str, system: str, genes: int, batch: int) -> float | None:
        return self.results.get(Job(measure, system, genes, batch), {}).get("cells_per_second")

    def best(self, measure: str, systems: Sequence[str], genes: int) -> float | None:
        """Highest cells/s of some systems at a gene list, whatever the batch."""
        found = [
            result["cells_per_second"]
            for job, result in self.results.items()
            if job.measure == measure and job.system in systems and job.genes == genes and "cells_per_second" in result
        ]
        return max(found, default=None)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def published_latents(bench: Bench) -> None:
    """Split the time of the published solver off the time of its samples; it does not depend on the genes."""
    for job, result in list(bench.results.items()):
        if (job.measure, job.system) == ("sample", "published") and "skipped" not in result:
            seconds = result["seconds_latents"]
            kept = {k: result[k] for k in ("cells", "evaluations", "peak_mib", "rise_mib", "cores_of_others")}
            speed = job.batch / float(np.median(seconds))
            bench.results[dataclasses.replace(job, measure="latents")] = {
                "seconds": seconds, "cells_per_second": speed, **kept,
            }  # fmt: skip

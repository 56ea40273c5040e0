"""Run `scldm demo` with several seeds and average its metrics: the embedded data set is too small for one.

python benchmarks/demo_quality.py [--seeds 5] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from scldm.commands import demo
from scldm.evaluation import EvaluationReport
from scldm.seeds import Seeding


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--seeding", choices=get_args(Seeding), default="64-bit", help="32-bit: as model format 4 had it"
    )
    parser.add_argument("--keep", type=Path, help="folder for what the demos leave, one folder a seed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    demo.DEMO_CONFIG = dataclasses.replace(demo.DEMO_CONFIG, seeding=arguments.seeding)
    reports, seconds = [], []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            output = (arguments.keep or Path(scratch)) / f"seed-{seed}"
            demo.Demo(output=output, seed=seed).run()
            seconds.append(time.perf_counter() - started)
            reports.append(EvaluationReport.load(output / "metrics.json"))
    systems = reports[0].systems.names
    print(f"\nmean (standard deviation) over {len(reports)} seeds; seconds per demo: {np.round(seconds)}")
    print("metric".ljust(30) + "".join(system.rjust(20) for system in systems))
    for row in reports[0].rows:
        cells = []
        for system in systems:
            found = [
                report.value(row.info.name, system, space=row.space, condition=row.condition) for report in reports
            ]
            values = np.array(found, dtype=float)
            cells.append(f"{values.mean():.4f} ({values.std():.4f})".rjust(20))
        print(row.label.ljust(30) + "".join(cells), flush=True)


if __name__ == "__main__":
    main()

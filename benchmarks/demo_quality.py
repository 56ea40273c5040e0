"""Run `scldm demo` with several seeds and average its metrics: the embedded data set is too small for one.

python benchmarks/demo_quality.py [--seeds 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from scldm.commands.demo import Demo
from scldm.evaluation import EvaluationReport


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    reports, seconds = [], []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            Demo(output=Path(scratch) / "demo", seed=seed).run()
            seconds.append(time.perf_counter() - started)
            reports.append(EvaluationReport.load(Path(scratch) / "demo" / "metrics.json"))
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

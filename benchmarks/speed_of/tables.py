"""What was measured, as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from scldm.evaluation.table import markdown_table
from speed_of.bench import Bench
from speed_of.job import OURS, SCVI, SYSTEMS
from speed_of.machine import BUSY, is_busy

TITLES = {
    "vae": "VAE training",
    "encode": "Encoding",
    "prior": "Prior training",
    "latents": "Sampling, latents alone (guided on one attribute)",
    "sample": "Sampling, decoded and written to a file (guided on one attribute)",
}


def speed_table(bench: Bench, measure: str, nfe: int | None) -> str:
    rows = []
    jobs = [job for job in bench.results if job.measure == measure]
    for job in sorted(jobs, key=lambda j: (j.genes, j.batch, SYSTEMS.index(j.system))):
        result = bench.results[job]
        genes = "any" if measure == "latents" or (measure == "prior" and "scldm" in job.system) else f"{job.genes:,}"
        if "skipped" in result:
            rows.append([genes, str(job.batch), job.system, "-", "-", "-", "-", "-", result["skipped"]])
            continue
        speed, notes = result["cells_per_second"], []
        if "evaluations" in result:
            notes.append(f"{np.mean(result['evaluations']):.0f} evaluations")
        if is_busy(result):
            notes.append(BUSY)
        if "utilisation" in result:
            notes.append(f"{result['tflops']:.3g} TFLOP/s, {100 * result['utilisation']:.1f} % of peak")
        if "expressed_genes" in result:
            notes.append(f"{result['expressed_genes']:.0f} genes per cell")
        ratios = [
            _times(speed, bench.best(measure, systems, job.genes))
            for systems in (("published",), SCVI.get(measure, ()))
        ]
        memory = [f"{result[key]:,.0f}" for key in ("peak_mib", "rise_mib")]
        rows.append([genes, str(job.batch), job.system, f"{speed:,.1f}", *ratios, *memory, ", ".join(notes)])
        if nfe is not None and "seconds_counts" in result:
            speed = _at_evaluations(result, nfe)
            rows.append([genes, str(job.batch), "published, reckoned", f"{speed:,.1f}", "", "", "", "", f"{nfe} evals"])
    header = ["genes", "batch", "system", "cells/s", "x published", "x scVI", "peak MiB", "rise MiB", ""]
    return f"### {TITLES[measure]}\n\n" + markdown_table(header, rows)


def _at_evaluations(result: dict[str, Any], nfe: int) -> float:
    per_evaluation = float(np.sum(result["seconds_latents"]) / np.sum(result["evaluations"]))
    return float(result["cells"] / (nfe * per_evaluation + np.median(result["seconds_counts"])))


def _times(speed: float, other: float | None) -> str:
    return "-" if other is None else f"{speed / other:,.2f}"


def slope(at: Sequence[float], seconds: Sequence[float]) -> float:
    return float(np.polyfit(np.log(at), np.log(seconds), 1)[0])


def growth_table(bench: Bench, genes: Sequence[int], batch: int) -> tuple[str, list[dict[str, Any]]]:
    curves: list[dict[str, Any]] = []
    for measure, system in (("vae", "scldm"), ("encode", "scldm"), *(("sample", s) for s in OURS)):
        at = [g for g in sorted(genes) if bench.speed(measure, system, g, batch)]
        if len(at) > 1:
            seconds = [1 / (bench.speed(measure, system, g, batch) or math.nan) for g in at]
            name = TITLES[measure].split(",")[0] + system.removeprefix("scldm")
            curves.append({"what": name, "with": "genes", "at": at, "seconds": seconds})
    for job, result in bench.results.items():
        if job.measure == "growth" and "skipped" not in result:
            for name, seconds in result["curves"].items():
                curves.append({"what": name, "with": job.system, "at": result["at"], "seconds": seconds})
    rows = []
    for curve in curves:
        curve["slope"] = slope(curve["at"], curve["seconds"])
        unit = 1e3
        rows.append([
            curve["what"], curve["with"], " / ".join(f"{x:,}" for x in curve["at"]),
            " / ".join(f"{unit * s:,.3g}" for s in curve["seconds"]),
            f"{curve['slope']:.2f}", "yes" if curve["slope"] <= 1.05 else "no",
        ])  # fmt: skip
    header = ["what", "grows with", "at", "ms per cell (with cells: ms in all)", "slope", "linear or better?"]
    title = f"### Growth of scldm (batch {batch}; slope of log time over log size, to 0.05)\n\n"
    return title + markdown_table(header, rows), curves


def data_table(bench: Bench) -> str:
    rows = []
    for job, result in bench.results.items():
        if job.measure != "data":
            continue
        if "skipped" in result:
            rows.append([f"{job.genes:,}", str(job.batch), job.system, "-", "-", "-", result["skipped"]])
            continue
        where = job.system + (f" ({BUSY})" if is_busy(result) else "")
        step, data = (1e3 * float(np.median(result[key])) for key in ("seconds", "seconds_data"))
        met = "yes" if result["share"] <= 0.1 else "no"
        row = [f"{step:.1f}", f"{data:.1f}", f"{100 * result['share']:.1f} %", met]
        rows.append([f"{job.genes:,}", str(job.batch), where, *row])
    header = ["genes", "batch", "cells are", "step ms", "data ms", "share of data", "at most 10 %?"]
    return "### Reading cells in a VAE training step\n\n" + markdown_table(header, rows)

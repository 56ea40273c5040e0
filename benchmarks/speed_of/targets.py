"""What has to be reached, as ratios between systems, and whether it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scldm.evaluation.table import markdown_table
from speed_of.bench import Bench
from speed_of.cells import OWN_GENES
from speed_of.job import PRIORS, SCVI, Job


def check_targets(bench: Bench, genes: int) -> list[dict[str, Any]]:
    """What has to be reached, as ratios; None where a side was not measured."""
    targets: list[dict[str, Any]] = []

    def at_least(name: str, ours: float | None, other: float | None, bound: float) -> None:
        value = None if ours is None or other is None else ours / other
        met = None if value is None else value >= bound
        targets.append({"target": name, "value": value, "bound": bound, "met": met})

    def memory(key: str, system: str, batch: int) -> float | None:
        return bench.results.get(Job("vae", system, genes, batch), {}).get(key)

    vae, where = bench.speed("vae", "scldm", genes, 128), f"{genes:,} genes"
    published = bench.best("vae", ("published",), genes)
    at_least(f"VAE training, {where}: cells/s at batch 128 over published at its best batch", vae, published, 50)
    for key, what in (("rise_mib", "rise of memory"), ("peak_mib", "peak of the whole process, imports included")):
        name = f"VAE training, {where}: {what}, published at batch 32 over scldm at 128"
        at_least(name, memory(key, "published", 32), memory(key, "scldm", 128), 5)
    for g in dict.fromkeys((OWN_GENES, genes)):
        ours, scvi = (bench.speed("vae", system, g, 128) for system in ("scldm", "scVI"))
        at_least(f"VAE training, {g:,} genes: cells/s over scVI, batch 128", ours, scvi, 1.5)
    priors = {
        system: [
            r["cells_per_second"]
            for j, r in bench.results.items()
            if (j.measure, j.system, j.batch) == ("prior", system, 128) and "cells_per_second" in r
        ]
        for system in PRIORS
    }
    published = bench.best("prior", ("published",), genes)
    for system, speeds in priors.items():
        same, option = "published network" in system, system.rpartition(", ")[2]
        name = f"prior training, {where}: cells/s at batch 128 over published at its best batch, "
        name += f"{'same' if same else 'own'} network" + (f", {option}" if option in ("compiled", "bf16") else "")
        at_least(name, max(speeds, default=None), published, 1.4 if same else 8)
    published = bench.best("sample", ("published",), genes)
    few, many = (bench.best("sample", (s,), genes) for s in ("scldm, few_step", "scldm, heun"))
    at_least(f"sampling into a file, {where}: heun (25 steps) over published", many, published, 10)
    at_least(f"sampling into a file, {where}: few_step (4 evaluations) over published", few, published, 100)
    at_least(f"sampling into a file, {where}: few_step over scVI", few, bench.best("sample", SCVI["sample"], genes), 1)
    return targets


def target_table(targets: Sequence[dict[str, Any]]) -> str:
    words = {True: "met", False: "missed", None: "not measured"}
    rows = [
        [t["target"], "-" if t["value"] is None else f"{t['value']:,.2f}", f">= {t['bound']}", words[t["met"]]]
        for t in targets
    ]
    return "### Targets\n\n" + markdown_table(["ratio", "value", "asked for", ""], rows)

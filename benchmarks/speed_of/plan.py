"""Which measurements the chosen parts, gene lists and batches ask for."""

from __future__ import annotations

from collections.abc import Sequence

from speed_of.cells import OWN_GENES
from speed_of.job import OURS, PRIORS, SCVI, Job
from speed_of.worker import WORKERS

PARTS = ("vae", "encode", "prior", "sample", "scaling", "data")


def usual_batch(batches: Sequence[int]) -> int:
    """Batch at which systems are compared."""
    return 128 if 128 in batches else min(batches)


def middle_genes(genes: Sequence[int]) -> int:
    """Length of the gene list at which systems are compared."""
    return 17_000 if 17_000 in genes else max(genes)


def plan(
    parts: Sequence[str], genes: Sequence[int], batches: Sequence[int], with_scvi: bool, on_cpu: bool
) -> list[Job]:
    """List all measurements of the chosen parts.

    Published is measured at batches of at most 128, sampled at the smallest; scVI at 128: more would take hours and
    change nothing, as their time per cell hardly depends on the batch.
    """
    slow = [b for b in batches if b <= 128] or [min(batches)]
    usual, middle = usual_batch(batches), middle_genes(genes)
    jobs = []
    for measure in ("vae", "encode"):
        if measure in parts:
            jobs += [Job(measure, "scldm", g, b) for g in genes for b in batches]
            jobs += [Job(measure, "published", g, b) for g in genes for b in slow]
            jobs += [Job(measure, "scVI", g, usual) for g in genes if with_scvi]
    if "vae" in parts and middle == 17_000:
        jobs += [Job("vae", system, OWN_GENES, usual) for system in ("scldm", *(("scVI",) if with_scvi else ()))]
    if "prior" in parts:
        jobs += [Job("prior", "scldm", min(genes), b) for b in batches]
        jobs += [Job("prior", "scldm, published network", min(genes), b) for b in slow]
        options = [system for system in PRIORS if system.endswith(("compiled", "bf16"))]
        jobs += [Job("prior", system, min(genes), usual) for system in options]
        jobs += [Job("prior", "published", g, b) for g in genes for b in slow]
    if "sample" in parts:
        # On the CPU, cells always pass through the networks in chunks of 128.
        jobs += [Job("sample", OURS[0], g, b) for g in genes for b in ([usual] if on_cpu else batches)]
        jobs += [Job("sample", OURS[1], g, b) for g in genes for b in batches]
        jobs += [Job("sample", "published", g, min(slow)) for g in genes]
        jobs += [Job("latents", system, min(genes), b) for b in batches for system in OURS]
        if with_scvi:
            jobs += [Job("sample", system, g, usual) for g in genes for system in SCVI["sample"]]
    if "scaling" in parts:
        for g in genes:
            jobs += [Job(m, "scldm", g, usual) for m in ("vae", "encode")]
            jobs += [Job("sample", system, g, usual) for system in OURS]
        jobs += [Job("growth", system, middle, usual) for measure, system in WORKERS if measure == "growth"]
    if "data" in parts:
        jobs += [Job("data", where, middle, usual) for measure, where in WORKERS if measure == "data"]
    return list(dict.fromkeys(jobs))

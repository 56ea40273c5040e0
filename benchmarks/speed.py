"""How fast, and in how much memory: scldm beside the published layout and scVI, in one run on one machine.

    SCLDM_DATA=... python benchmarks/speed.py [--genes 2000 8000 17000 36000] [--batches 32 128 512] [--json FILE]

Systems, all given the same cells:

- **scldm**: the defaults, ``RunConfig()``. Training is timed inside :func:`scldm.training.stage.train_stage` (reading,
  noise, forward, backward, clipping, AdamW, average), encoding is what fills the latent store, and sampling is
  ``ScLDM.sample_to_file`` guided with scale 2 on the cell type. On GPUs, training is under bf16 autocast.
- **published**: Palla et al. 2025 as its authors run it, put together from our parts: the published layout (width 32,
  16 x 16 latents, 8 + 8 layers, log1p tokens, unmasked padding, nothing recomputed), a dense likelihood, float32; a DiT
  of 256 x 8 x 8 in whose every training step the cells are encoded again; sampling by adaptive Dormand-Prince at 1e-5
  with (2 + attributes) network rows per cell and evaluation, and counts drawn densely. Our parts project the gene
  queries once for all cells and fuse the optimiser, so this is, if anything, faster than the original. Attention is
  torch's fused one, as in the published code.
- **scVI**: its defaults, cell type as batch; only where scvi-tools is installed. Sampled both as
  ``posterior_predictive_sample`` and from the normal prior.

The gene lists are the most abundant genes of the file; beyond them come genes with a single count in all the data,
since a gene without any is refused. Every measurement is a process of its own: its peak of resident memory (on a GPU:
allocated memory), and how far that lies above what the process held with the cells loaded and nothing built. Needs
Linux for the memory on a CPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

from speed_of.bench import Bench, published_latents
from speed_of.cells import write_cells
from speed_of.job import Settings
from speed_of.machine import machine
from speed_of.plan import PARTS, middle_genes, plan, usual_batch
from speed_of.tables import TITLES, data_table, growth_table, speed_table
from speed_of.targets import check_targets, target_table
from speed_of.worker import worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, help="where to write every single number")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--genes", type=int, nargs="+", default=[2_000, 8_000, 17_000, 36_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--repeats", type=int, default=5, help="ours: 4 training steps each; published: 2 or 3 at most")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dataset", default="pbmc_facs_zheng")
    parser.add_argument("--nfe", type=int, default=None, help="also reckon published sampling with so many evaluations")
    parser.add_argument("--peak-tflops", type=float, default=None, help="of the device; counts operations of training")
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        worker(arguments.worker)
        return
    if "SCLDM_DATA" not in os.environ:
        parser.error("set SCLDM_DATA to the directory with the data sets")
    with_scvi = importlib.util.find_spec("scvi") is not None
    work = tempfile.mkdtemp(prefix="scldm-speed-")
    try:
        settings = Settings(
            work, arguments.dataset, arguments.device, arguments.threads, arguments.repeats,
            arguments.peak_tflops is not None,
        )  # fmt: skip
        bench, about = Bench(settings, arguments.peak_tflops, __file__), machine(settings)
        started = time.perf_counter()
        jobs = plan(arguments.parts, arguments.genes, arguments.batches, with_scvi, settings.on_cpu)
        for genes in {job.genes for job in jobs}:
            write_cells(settings, genes)
        for job in jobs:
            bench.run(job)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    published_latents(bench)
    about["minutes"] = (time.perf_counter() - started) / 60
    about["scvi"] = importlib.metadata.version("scvi-tools") if with_scvi else None

    growth, curves = growth_table(bench, arguments.genes, usual_batch(arguments.batches))
    targets = check_targets(bench, middle_genes(arguments.genes))
    if arguments.json is not None:
        options = {key: value for key, value in vars(arguments).items() if key not in ("json", "worker")}
        everything = {
            "machine": about, "arguments": options, "targets": targets, "growth": curves,
            "results": [{**vars(job), **result} for job, result in bench.results.items()],
        }  # fmt: skip
        arguments.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    print(", ".join(f"{key} {value}" for key, value in about.items() if value is not None), end="\n\n")
    for measure in TITLES:
        if any(job.measure == measure for job in bench.results):
            print(speed_table(bench, measure, arguments.nfe))
    if "scaling" in arguments.parts:
        print(growth)
    if "data" in arguments.parts:
        print(data_table(bench))
    print(target_table(targets))


if __name__ == "__main__":
    main()

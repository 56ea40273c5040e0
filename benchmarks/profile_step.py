"""Where a step goes: time of a training step of either stage by kind of operation, and how far it is from the floor.

    SCLDM_DATA=... python benchmarks/profile_step.py [--genes 17000] [--batch 128] [--threads 2]

The floor is what cannot be spared: the matrix products at the speed this machine multiplies large matrices, and every
weight, gradient, moment and average read and written as often as the optimiser has to, at the speed it copies memory.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import scipy.sparse as sp
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from scldm.config import PriorConfig, RunConfig, VAEConfig
from scldm.data.batch import CellBatch
from scldm.nn.objective import Objective
from scldm.prior.dit import DiT
from scldm.prior.latents import LatentBatch, LatentStatistics
from scldm.prior.objective import PriorObjective
from scldm.seeds import torch_rng
from scldm.training.ema import ExponentialMovingAverage
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective

#: Kinds of operation by the beginning of the names of torch's operators; what none fits is "other passes".
KINDS = {
    "data": ("data",),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product"),
    "gene tables by entry": ("aten::_embedding_bag", "aten::sort", "aten::searchsorted", "aten::index", "aten::gather"),
    "optimiser": ("aten::_fused_adamw_", "Optimizer", "aten::_foreach", "aten::lerp_", "aten::linalg_vector_norm"),
    "exp, log, gamma functions": ("aten::exp_", "aten::expm1", "aten::log1p", "aten::log_", "aten::_softmax",
                                  "aten::_log_softmax", "aten::lgamma", "aten::digamma", "aten::silu"),
}  # fmt: skip


def counts_of(n_genes: int) -> sp.csr_matrix:
    """Cells of pbmc_facs_zheng with its most abundant genes, or padded with genes that no cell expresses."""
    counts = sp.csr_matrix(ad.read_h5ad(Path(os.environ["SCLDM_DATA"]) / "pbmc_facs_zheng.h5ad").X, dtype=np.float32)
    if n_genes <= counts.shape[1]:
        totals = np.asarray(counts.sum(0)).ravel()
        counts = counts[:, np.sort(np.argsort(-totals)[:n_genes])]
    else:
        counts = sp.hstack([counts, sp.csr_matrix((counts.shape[0], n_genes - counts.shape[1]))], format="csr")
    return counts[np.asarray(counts.sum(1)).ravel() > 0].astype(np.float32)


def stepper(
    objective: Objective, next_batch: Callable[[], CellBatch | LatentBatch], n_cells: int
) -> Callable[[], None]:
    """One step of training as the loop does it: data, noise, forward, backward, norm, AdamW, average."""
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, fused=True)
    average = ExponentialMovingAverage(objective.network, 0.99)
    done = 0

    def step() -> None:
        nonlocal done
        with record_function("data"):
            batch = next_batch()
        noise = objective.draw_noise(n_cells, torch_rng(0, "profile", done, "cpu"))
        loss = objective(batch, noise)["loss"].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.get_total_norm([p.grad for p in objective.parameters() if p.grad is not None])
        optimizer.step()
        average.update(objective.network)
        done += 1

    return step


def seconds(function: Callable[[], object], repeats: int = 20) -> float:
    """Median seconds of a call."""
    for _ in range(3):
        function()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def report(name: str, objective: Objective, step: Callable[[], None], n_cells: int) -> None:
    """Print time by kind of operation, and the floor."""
    taken = 1e3 * seconds(step)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        for _ in range(5):
            step()
    kinds: dict[str, float] = defaultdict(float)
    for event in trace.key_averages():
        named = "exp, log, gamma functions" if event.key in ("aten::exp", "aten::log") else "other passes"
        kind = next((k for k, names in KINDS.items() if event.key.startswith(names)), named)
        kinds[kind] += event.self_cpu_time_total
    # The rest of the time of a step is Python between the operators. Under the trace everything takes a little longer.
    kinds["between operators"] = max(0.0, 5e3 * taken - sum(kinds.values()))
    total = sum(kinds.values())
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    operations = counter.get_total_flops()
    large = torch.randn(2048, 2048)
    speed = 2 * 2048**3 / seconds(lambda: large @ large, 5)
    block = torch.empty(2**26)
    copied = torch.empty_like(block)
    bandwidth = 2 * block.nbytes / seconds(lambda: copied.copy_(block), 5)
    n_weights = sum(p.numel() for p in objective.parameters())
    # AdamW reads weight, gradient and moments and writes weight and moments; the gradient is written once before, and
    # read once for its norm; the average is read with the weight and written.
    moved = 4 * n_weights * (4 + 3 + 2 + 3)
    floor = 1e3 * (operations / speed + moved / bandwidth)
    print(f"\n{name}: {taken:.1f} ms for {n_cells} cells, {1e3 * n_cells / taken:,.0f} cells/s")
    for kind, microseconds in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"  {kind:28s} {taken * microseconds / total:6.1f} ms  {100 * microseconds / total:4.0f} %")
    print(
        f"  floor {floor:.1f} ms: {operations / 1e9:.2f} G operations in products at {speed / 1e9:.0f} G/s, "
        f"{moved / 1e6:.0f} MB at {bandwidth / 1e9:.0f} GB/s; the step takes {taken / floor:.1f} times as long"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=17_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    counts, random = counts_of(arguments.genes), np.random.default_rng(0)

    vae = VAE(VAEConfig(), arguments.genes, 0, np.asarray(counts.sum(0)).ravel())
    objective: Objective = VAEObjective(vae, None, counts.shape[0]).train()
    step = stepper(
        objective,
        lambda: CellBatch.from_csr(counts[random.integers(0, counts.shape[0], arguments.batch)]),
        arguments.batch,
    )
    report(f"autoencoder, {arguments.genes:,} genes", objective, step, arguments.batch)

    prior, sizes, n_cells = PriorConfig(), VAEConfig(), RunConfig().prior_training.batch_size
    state = sizes.n_latents * sizes.latent_channels
    network = DiT(sizes.n_latents, sizes.latent_channels, prior.width, prior.n_layers, prior.n_heads, (10,))
    objective = PriorObjective(network, LatentStatistics(torch.zeros(state), torch.ones(state)), prior).train()
    batch = LatentBatch(
        torch.randn(n_cells, state),
        torch.zeros(n_cells, state),
        torch.randn(n_cells),
        torch.zeros(n_cells, 1, dtype=torch.long),
        torch.empty(n_cells, 0),
    )
    report("prior", objective, stepper(objective, lambda: batch, n_cells), n_cells)


if __name__ == "__main__":
    main()

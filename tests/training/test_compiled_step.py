"""A training step as a graph: no breaks, no waiting for the device, likelihoods in float32 under bf16."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import tiny
import torch
import torch._dynamo

from scldm.config import PriorConfig
from scldm.data.batch import CellBatch
from scldm.nn.objective import Objective
from scldm.prior.dit import DiT
from scldm.prior.few_step.solver import FewStepSolver
from scldm.prior.guidance import Guidance, guided_field
from scldm.prior.latents import LatentBatch, LatentStatistics
from scldm.prior.objective import PriorObjective
from scldm.prior.solvers import heun, time_grid
from scldm.seeds import torch_rng
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective

N_CELLS, N_GENES = 8, 60
STEPS = ["vae", "vae with dispersions by category", "vae with zero inflation and unmeasured genes", "prior"]
SOLVES = ["heun", "few_step"]


def objective_of(step: str) -> Objective:
    torch.manual_seed(0)
    if step == "prior":
        network = DiT(2, 4, 16, 1, 2, (3,), 1)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return PriorObjective(network, LatentStatistics(torch.zeros(8), torch.ones(8)), PriorConfig()).train()
    by_category = step == "vae with dispersions by category"
    likelihood = "zero_inflated_negative_binomial" if step.startswith("vae with zero") else "negative_binomial"
    vae = VAE(tiny.tiny_vae(likelihood=likelihood), N_GENES, 3 if by_category else 0, None, (3,), 1)
    return VAEObjective(vae, 0 if by_category else None, n_training_cells=100).train()


def batch_of(step: str, seed: int) -> CellBatch | LatentBatch:
    random = np.random.default_rng(seed)
    categorical = random.integers(-1, 3, (N_CELLS, 1))
    continuous = random.normal(size=(N_CELLS, 1)).astype(np.float32)
    if step == "prior":
        mean, log_variance = torch.randn(2, N_CELLS, 8, generator=torch.Generator().manual_seed(seed))
        attributes = torch.from_numpy(categorical), torch.from_numpy(continuous)
        return LatentBatch(mean, log_variance, torch.zeros(N_CELLS), *attributes)
    counts = random.poisson(0.5, (N_CELLS, N_GENES)) + np.eye(N_CELLS, N_GENES, dtype=np.int64)
    if not step.endswith("unmeasured genes"):
        return CellBatch.from_csr(sp.csr_matrix(counts), categorical, continuous)
    measured, stores = np.ones((2, N_GENES), dtype=bool), random.integers(0, 2, N_CELLS)
    measured[1, -20:] = False
    batch = CellBatch.from_csr(sp.csr_matrix(counts * measured[stores]), categorical, continuous)
    return dataclasses.replace(batch, measured=torch.from_numpy(measured), stores=torch.from_numpy(stores))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """Traceback of every check below that fails, and nothing for one that holds.

    They run in a process of their own, where the checks of shapes, which cannot be compiled, are not switched on; one
    for all of them, because importing and warming up the compiler takes longer than most of them.
    """
    program = f"import sys; sys.path[:0] = {sys.path!r}; import test_compiled_step; test_compiled_step.run_checks()"
    result = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def run_checks() -> None:
    """Run every check from a compiler that has seen nothing yet, and print what failed as JSON."""
    outcomes = {}
    for check, argument in [(check_one_graph, step) for step in STEPS] + [(check_one_solve, name) for name in SOLVES]:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        try:
            check(argument)
            outcomes[argument] = ""
        except Exception:
            outcomes[argument] = traceback.format_exc()
    print(json.dumps(outcomes))


@pytest.mark.parametrize("step", STEPS)
def test_a_training_step_is_one_graph(outcomes, step):
    assert not outcomes[step], outcomes[step]


def check_one_graph(step: str) -> None:
    """Batches have different numbers of entries: the second graph, with dynamic sizes, serves all that follow."""
    objective = objective_of(step)
    compiled = torch.compile(objective, backend="aot_eager", fullgraph=True)
    for number in range(4):
        batch = batch_of(step, number)
        noise = objective.draw_noise(N_CELLS, torch_rng(0, step, number, "cpu"))
        gradients = []
        for forward in (compiled, objective):
            objective.zero_grad()
            forward(batch, noise)["loss"].mean().backward()
            gradients.append([p.grad for p in objective.parameters() if p.grad is not None])
        assert len(gradients[0]) > 10
        for ours, plain in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == (1 if step == "prior" else 2)
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.parametrize("solver", SOLVES)
def test_a_guided_solve_is_one_graph(outcomes, solver):
    """What is one graph, of fixed shapes and without a look at its values, a GPU can record and replay."""
    assert not outcomes[solver], outcomes[solver]


def check_one_solve(name: str) -> None:
    network = objective_of("prior").network
    cells = batch_of("prior", 0)
    plan = Guidance.additive({"a": 2.0, "b": 1.5}).plan(("a", "b"), ("a", "b"))
    velocity = guided_field(network, cells.categorical, cells.continuous, plan)
    few_step = FewStepSolver.midpoint(4)

    def solve(state: torch.Tensor) -> torch.Tensor:
        return few_step(velocity, state) if name == "few_step" else heun(velocity, state, time_grid(2))

    compiled = torch.compile(solve, backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        for seed in range(3):
            state = torch.randn(N_CELLS, network.state_size, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(compiled(state), solve(state))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("step", STEPS)
def test_loss_under_bf16_is_float32_and_near(step):
    objective, batch = objective_of(step), batch_of(step, 0)
    noise = objective.draw_noise(N_CELLS, torch_rng(0, step, 0, "cpu"))
    losses, gradients = [], []
    for precision in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with precision:
            losses.append(objective(batch, noise)["loss"])
        objective.zero_grad()
        losses[-1].mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None]))
    assert losses[1].dtype == torch.float32
    assert not torch.equal(*losses)
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0.02)
    assert torch.linalg.vector_norm(gradients[1] - gradients[0]) < 0.05 * torch.linalg.vector_norm(gradients[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("step", STEPS)
def test_a_training_step_never_waits_for_the_gpu(step):
    objective = objective_of(step).cuda()
    optimizer = torch.optim.AdamW(objective.parameters(), fused=True)
    for number in range(3):
        batch = batch_of(step, number).pin_memory().to("cuda", non_blocking=True)
        torch.cuda.synchronize()
        # The first step allocates and tunes; from then on, whatever waits raises.
        torch.cuda.set_sync_debug_mode("error" if number else "default")
        try:
            noise = objective.draw_noise(N_CELLS, torch_rng(0, step, number, "cuda"))
            with torch.autocast("cuda", torch.bfloat16):
                loss = objective(batch, noise)["loss"].mean()
            loss.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in objective.parameters() if p.grad is not None])
            torch.nn.utils.clip_grads_with_norm_(objective.parameters(), 1.0, norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")

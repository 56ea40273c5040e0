"""Tiny data, configurations and child processes that tests share; imported by child processes too."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
import yaml
from accelerate import Accelerator

from scldm.cli import main
from scldm.config import PriorConfig, RunConfig, TrainingConfig, VAEConfig
from scldm.data.batch import CellBatch
from scldm.generation.request import GenerationRequest
from scldm.model import ScLDM
from scldm.training.distributed import make_accelerator
from scldm.training.stage import _Stage

CONDITIONS = ("cell_type", "batch")
CELL_TYPES = ("T cell", "B cell", "monocyte")


def tiny_adata(n_cells: int = 120, n_genes: int = 60, seed: int = 0) -> ad.AnnData:
    """Cells of three types with different rates, two batches, an age; no monocyte comes from batch "two"."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 3, n_cells)
    batch = np.where(kind == 2, 0, random.integers(0, 2, n_cells))
    rates = random.gamma(0.6, 2.5, (3, n_genes)) + 0.05
    depth = random.lognormal(0.0, 0.4, (n_cells, 1))
    counts = random.poisson(rates[kind] * depth)
    counts[np.arange(n_cells), kind] += 1
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(np.array(CELL_TYPES)[kind], categories=CELL_TYPES),
            "batch": np.array(["one", "two"])[batch],
            "age": random.normal(50.0, 10.0, n_cells),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)])
    return ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


def tiny_vae(**changes: Any) -> VAEConfig:
    """Smallest autoencoder that still has several tokens, heads and blocks."""
    sizes: dict[str, Any] = {
        "n_latents": 2,
        "latent_channels": 4,
        "width": 8,
        "n_layers": 1,
        "n_heads": 2,
        "n_cross_heads": 2,
    }
    return VAEConfig(**{**sizes, "table_width": 16, **changes})


def tiny_training(**changes: Any) -> TrainingConfig:
    """Thirty steps; validation every 10 and checkpoints every 7 steps, so that they do not coincide."""
    lengths: dict[str, Any] = {
        "cells": 720,
        "batch_size": 24,
        "warmup_cells": 96,
        "validate_every": 240,
        "checkpoint_every": 168,
        "patience": 0.0,
    }
    return TrainingConfig(**{**lengths, **changes})


def tiny_config(**changes: Any) -> RunConfig:
    """Run of two times thirty steps; the prior has dropout, whose masks have to survive a kill as well.

    The prior's rate is high enough that, whatever the seed, its field bends and sees the attributes after thirty steps.
    """
    return RunConfig(
        **{
            "vae": tiny_vae(dispersion_by="cell_type"),
            "prior": PriorConfig(width=8, n_layers=1, n_heads=2, dropout=0.1),
            "vae_training": tiny_training(learning_rate=5e-3),
            "prior_training": tiny_training(learning_rate=2e-2, ema_decay=0.9),
            **changes,
        }
    )


def write_config(path: Path, cells_file: Path) -> Path:
    """Write the configuration of a tiny run on a file of :func:`tiny_adata`, and return where it is."""
    run = tiny_config(vae=tiny_vae()).to_dict()
    run["data"] |= {"path": str(cells_file), "conditions": list(CONDITIONS), "continuous": ["age"]}
    path.write_text(yaml.safe_dump(run))
    return path


def tiny_model(config: RunConfig | None = None, adata: ad.AnnData | None = None) -> ScLDM:
    """Untrained model of :func:`tiny_adata`."""
    adata = tiny_adata() if adata is None else adata
    if config is None:
        data = RunConfig().data
        # The dispersion's attribute has to be among the conditions before the model completes the configuration.
        config = tiny_config(data=type(data)(**{**vars(data), "conditions": CONDITIONS, "continuous": ("age",)}))
    return ScLDM(adata, config=config)


def tiny_batch(n_cells: int = 8, n_genes: int = 60, seed: int = 0) -> CellBatch:
    """Cells of :func:`tiny_adata` as a batch, with the codes of ``cell_type``."""
    adata = tiny_adata(max(n_cells, 8), n_genes, seed)[:n_cells]
    codes = adata.obs["cell_type"].cat.codes.to_numpy()[:, None].astype(np.int64)
    return CellBatch.from_csr(sp.csr_matrix(adata.X), codes)


# What child processes do ----------------------------------------------------------------------------------------------


def train_until_killed(directory: Path, stage: str, step: int) -> None:
    """Train in ``directory`` and die without a farewell at a step of a stage."""

    def on_step(name: str, done: int) -> None:
        if (name, done) == (stage, step):
            os.kill(os.getpid(), signal.SIGKILL)

    tiny_model().train(directory, accelerator=Accelerator(cpu=True), on_step=on_step)


def train_and_sample(directory: Path, accumulation: int = 1) -> None:
    """Train in ``directory`` and save there ``model`` and, generated by all processes, ``cells.h5ad``."""
    accelerator = make_accelerator("float32")
    plain = tiny_model().config
    config = RunConfig(
        **{
            **vars(plain),
            # Dropout masks of modules are drawn by each process for itself.
            "prior": PriorConfig(**{**vars(plain.prior), "dropout": 0.0}),
            "vae_training": tiny_training(learning_rate=5e-3, gradient_accumulation=accumulation),
            # Processes round differently, and steps amplify that: smaller ones keep the two runs comparable.
            "prior_training": tiny_training(learning_rate=5e-3, ema_decay=0.9),
        }
    )
    model = tiny_model(config)
    model.train(directory, accelerator=accelerator)
    if accelerator.is_main_process:
        model.save(directory / "model")
    sample_together(directory / "model", directory / "cells.h5ad")


def sample_together(model_directory: Path, path: Path) -> None:
    """Generate 700 cells with however many processes there are."""
    accelerator = make_accelerator("float32")
    accelerator.wait_for_everyone()
    model = ScLDM.load(model_directory, device="cpu")
    request = GenerationRequest.build(model.schema, 700, conditions={"cell_type": "T cell"}, steps=2, seed=3)
    model.sample_to_file(path, request, batch_size=128, accelerator=accelerator)


def command(log: Path, *words: str) -> None:
    """Run a command line, and append what it prints to ``log``."""
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        main(words)


def command_with_signal(log: Path, number: int, stage: str, step: int, rank: int, *words: str) -> None:
    """Run a command line in which one process gets a signal behind a step of a stage."""
    train_step = _Stage._train_step

    def step_with_signal(self: _Stage, batch: Any) -> None:
        train_step(self, batch)
        if (self.name, self.state.step, int(os.environ.get("RANK", "0"))) == (stage, step, rank):
            os.kill(os.getpid(), number)

    _Stage._train_step = step_with_signal  # type: ignore[method-assign]
    command(log, *words)


def in_processes(target: Callable[..., None], *args: Any, n_processes: int = 1, timeout: float = 120) -> list[int]:
    """Run ``target`` in fresh processes, joined in a group like those of torchrun, and return their exit codes."""
    # One server imports the package and forks from there, before any thread of torch exists; the first optimiser of a
    # process would import the compiler, too.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scldm.model", "torch._dynamo"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_child, args=(rank, n_processes, port, target, args)) for rank in range(n_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _child(rank: int, n_processes: int, port: int, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if n_processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(n_processes),
            "LOCAL_WORLD_SIZE": str(n_processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            # torchrun sets nothing else; where there is a GPU, two processes cannot share it.
            "CUDA_VISIBLE_DEVICES": "",
        }
    target(*args)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

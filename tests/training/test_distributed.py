"""Two processes, joined as torchrun joins them, against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file

from scldm import ScLDM
from scldm.data.order import EpochOrder
from scldm.errors import UserError
from scldm.training.distributed import make_accelerator, share_of_process


def lines(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, Path]:
    """The same training and sampling with one process and with two; two also accumulate gradients."""
    directories = {}
    for n_processes, accumulation in ((1, 1), (2, 2)):
        directories[n_processes] = tmp_path_factory.mktemp(f"processes{n_processes}")
        codes = tiny.in_processes(
            tiny.train_and_sample, directories[n_processes], accumulation, n_processes=n_processes
        )
        assert codes == [0] * n_processes
    return directories


def test_precision_is_float32_on_the_cpu_unless_asked_for():
    assert make_accelerator("auto", cpu=True).mixed_precision == "no"
    assert make_accelerator("float32", cpu=True).device.type == "cpu"
    # One Python process may train several models, each in a precision of its own.
    assert make_accelerator("bf16", cpu=True).mixed_precision == "bf16"
    assert make_accelerator("float32", cpu=True).mixed_precision == "no"


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"):
        make_accelerator("float32", cpu=True)


@pytest.mark.parametrize("said", ["0", "-1", "two", "", "1.5", "9" * 5000, "\u0663"])
def test_a_number_of_processes_that_is_none_is_refused(monkeypatch, said):
    monkeypatch.setenv("WORLD_SIZE", said)
    with pytest.raises(UserError, match="WORLD_SIZE is"):
        make_accelerator("float32", cpu=True)


def test_what_accelerate_cannot_do_is_said_with_what_the_environment_asks(monkeypatch):
    def refuse(**options):
        raise ImportError("deepspeed is not installed")

    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("scldm.training.distributed.Accelerator", refuse)
    with pytest.raises(UserError, match=r"cannot start: deepspeed is not installed.* ACCELERATE_USE_DEEPSPEED"):
        make_accelerator("float32", cpu=True)


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_the_shares_of_the_processes_are_the_whole_noise(n_processes):
    noise = {"a": torch.randn(12, 2), "b": torch.rand(12)}
    shares = [share_of_process(noise, process, n_processes) for process in range(n_processes)]
    assert {len(share["a"]) for share in shares} == {12 // n_processes}
    for name, whole in noise.items():
        assert torch.equal(torch.cat([share[name] for share in shares]), whole)


def test_ranks_share_the_batches_of_one_process():
    alone = EpochOrder(101, 24, seed=3)
    ranks = [EpochOrder(101, 24, seed=3, rank=rank, world_size=2) for rank in range(2)]
    for step in range(alone.steps_per_epoch):
        parts = [rank.batch(2, step) for rank in ranks]
        assert [len(part) for part in parts] == [12, 12]
        np.testing.assert_array_equal(np.concatenate(parts), alone.batch(2, step))


def test_two_processes_follow_the_losses_of_one(runs):
    pairs = list(zip(lines(runs[1]), lines(runs[2]), strict=True))
    assert len(pairs) == 6
    for alone, together in pairs:
        for key in ("stage", "step", "cells", "learning_rate"):
            assert alone[key] == together[key]
        for key in ("train_loss", "validation_loss"):
            assert together[key] == pytest.approx(alone[key], rel=1e-4), (alone["stage"], alone["step"], key)


def test_two_processes_end_with_the_weights_of_one(runs):
    for name in ("vae.safetensors", "prior.safetensors"):
        alone, together = (load_file(runs[n] / "model" / name) for n in (1, 2))
        for key in alone:
            if not key.startswith("few_step."):
                # Adam turns rounding errors of tiny gradients into steps, so only nearly.
                assert (alone[key] - together[key]).abs().max() < 5e-3 * max(1.0, alone[key].abs().max()), (name, key)


def test_two_processes_fit_solvers_that_solve_alike(runs):
    """Their coefficients may differ by more than where they take a cell."""
    alone, together = (ScLDM.load(runs[n] / "model", device="cpu").trained for n in (1, 2))
    prior, n_cells = alone.prior, 50
    start = torch.randn(n_cells, prior.state_size, generator=torch.Generator().manual_seed(0))
    codes = torch.full((n_cells, len(prior.attributes.tables)), -1)
    numbers = torch.full((n_cells, len(prior.attributes.projections)), torch.nan)

    def velocity(state, time):
        return prior(state, state.new_full((n_cells,), time), codes, numbers)

    assert alone.few_step.keys() == together.few_step.keys()
    for key, solver in alone.few_step.items():
        ends = solver(velocity, start), together.few_step[key](velocity, start)
        assert (ends[0] - ends[1]).abs().max() < 5e-3 * ends[0].abs().max(), key


def test_one_process_writes(runs):
    assert sorted(p.name for p in runs[2].iterdir()) == sorted(p.name for p in runs[1].iterdir())
    config = json.loads((runs[2] / "model" / "config.json").read_text())
    assert config["training"]["processes"] == 2


def test_two_processes_generate_the_file_of_one(runs, tmp_path):
    path = tmp_path / "cells.h5ad"
    assert tiny.in_processes(tiny.sample_together, runs[2] / "model", path) == [0]
    alone, together = ad.read_h5ad(path), ad.read_h5ad(runs[2] / "cells.h5ad")
    assert alone.shape == (700, 60)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(alone.X, part), getattr(together.X, part))
    np.testing.assert_array_equal(alone.obsm["X_scldm"], together.obsm["X_scldm"])
    assert alone.obs.equals(together.obs)
    assert alone.uns["scldm"] == together.uns["scldm"]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> Path:
    """Configuration file of :func:`tiny.tiny_model`, without dropout, whose masks each process draws for itself."""
    directory = tmp_path_factory.mktemp("config")
    tiny.tiny_adata().write_h5ad(directory / "cells.h5ad")
    run = tiny.tiny_model().config.to_dict()
    run["data"]["path"] = str(directory / "cells.h5ad")
    run["prior"]["dropout"] = 0.0
    (directory / "tiny.yaml").write_text(yaml.safe_dump(run))
    return directory / "tiny.yaml"


def test_commands_join_the_processes_of_torchrun(config_file, tmp_path):
    # Two processes that did not see each other would both write here, and both say so.
    model, log = tmp_path / "model", tmp_path / "train.log"
    words = ["train", str(config_file), "--output", str(model)]
    assert tiny.in_processes(tiny.command, log, *words, n_processes=2) == [0, 0]
    assert json.loads((model / "config.json").read_text())["training"]["processes"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "train.log"]
    assert log.read_text().count("2 processes on cpu") == log.read_text().count("wrote") == 1

    ask = ["--n-cells", "300", "--steps", "2", "--condition", "cell_type=monocyte", "batch=two"]
    for n_processes in (1, 2):
        log = tmp_path / f"{n_processes}.log"
        words = ["sample", str(model), "--output", str(tmp_path / f"{n_processes}.h5ad"), *ask]
        assert tiny.in_processes(tiny.command, log, *words, n_processes=n_processes) == [0] * n_processes
        assert log.read_text().count("Never observed together") == log.read_text().count("wrote") == 1
    assert (tmp_path / "1.h5ad").read_bytes() == (tmp_path / "2.h5ad").read_bytes()


@pytest.mark.slow
def test_torchrun_starts_such_processes(config_file, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "scldm", "train", str(config_file), "--output", str(tmp_path / "model")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, check=True, env=environment, timeout=300, capture_output=True, text=True)
    assert "2 processes on cpu" in done.stderr
    assert json.loads((tmp_path / "model" / "config.json").read_text())["training"]["processes"] == 2

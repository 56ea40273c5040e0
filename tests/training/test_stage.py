from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from scldm.config import TrainingConfig
from scldm.errors import UserError
from scldm.nn.objective import Objective
from scldm.prior.latents import LatentBatch
from scldm.seeds import torch_rng
from scldm.training.schedule import learning_rate_factor
from scldm.training.stage import train_stage
from scldm.training.tracking import MetricsLog

N_CELLS = 40


class Regression(Objective):
    """Least squares on the latents' first channel: cheap, and its optimum is known."""

    def __init__(self, noise_scale: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.network: nn.Linear = nn.Linear(3, 1)
        self.noise_scale = noise_scale

    def draw_noise(self, n_cells, generator):
        return {"target": torch.randn(n_cells, generator=generator)}

    def forward(self, batch, noise):
        predicted = self.network(batch.mean)[:, 0]
        target = batch.depth + self.noise_scale * noise["target"]
        error = (predicted - target).square()
        return {"loss": error, "bias": predicted - target}


class Cells(Dataset):
    """Data set of latents whose depth is a linear function of them."""

    def __init__(self, n_cells: int = N_CELLS, seed: int = 0, flip: float = 1.0):
        generator = torch.Generator().manual_seed(seed)
        self.mean = torch.randn(n_cells, 3, generator=generator)
        self.depth = flip * (self.mean @ torch.tensor([1.0, -2.0, 0.5]) + 0.3)
        self.seen: list[np.ndarray] = []

    def __len__(self):
        return len(self.depth)

    def __getitem__(self, indices):
        self.seen.append(np.asarray(indices))
        n = len(indices)
        mean = self.mean[indices]
        return LatentBatch(
            mean, torch.zeros_like(mean), self.depth[indices], torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0)
        )


def settings(**changes) -> TrainingConfig:
    values = {
        "cells": 800, "batch_size": 8, "learning_rate": 0.05, "warmup_cells": 0, "weight_decay": 0.0, "ema_decay": 0.0,
        "validate_every": 80, "checkpoint_every": 56, "patience": 0.0,
    }  # fmt: skip
    return TrainingConfig(**{**values, **changes})


def run(directory: Path, objective=None, validation=None, *, training=None, on_step=None, seed=0, **changes):
    objective = objective or Regression()
    result = train_stage(
        "vae",
        objective,
        training or Cells(),
        validation or Cells(16, seed=1),
        settings(**changes),
        seed=seed,
        seeding="64-bit",
        accelerator=Accelerator(cpu=True),
        directory=directory / "checkpoint",
        log=MetricsLog(directory / "metrics.jsonl"),
        on_step=on_step,
    )
    return objective, result


def lines(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def weights(objective: Objective) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in objective.network.parameters()])


# Optimisation ----------------------------------------------------------------------------------------------------


def test_learning_rate_in_use_is_the_scheduled_one(tmp_path):
    run(tmp_path, warmup_cells=160, validate_every=8)
    config = settings(warmup_cells=160)
    expected = [0.05 * learning_rate_factor(config, 8 * step) for step in range(100)]
    assert [line["learning_rate"] for line in lines(tmp_path)] == pytest.approx(expected)


def test_a_solvable_problem_is_solved(tmp_path):
    objective, result = run(tmp_path, cells=2400)
    assert result.cells == 2400
    assert result.best_loss < 1e-4
    assert not result.stopped_early
    torch.testing.assert_close(weights(objective), torch.tensor([1.0, -2.0, 0.5, 0.3]), atol=0.02, rtol=0)


@pytest.mark.parametrize("clip_norm", [100.0, 0.5])
def test_steps_are_adamw_on_the_clipped_mean_loss_of_the_batch(tmp_path, clip_norm):
    data = Cells()
    settings_ = {"cells": 40, "weight_decay": 0.1, "decay": "constant", "clip_norm": clip_norm}
    objective, _ = run(tmp_path, training=data, validation=Cells(4, flip=-1.0), **settings_)
    reference = Regression()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.05, betas=(0.9, 0.95), weight_decay=0.1)
    norms = []
    for indices in list(data.seen):
        optimizer.zero_grad()
        reference(data[indices], {"target": torch.zeros(8)})["loss"].mean().backward()
        norms.append(nn.utils.clip_grad_norm_(reference.parameters(), clip_norm).item())
        optimizer.step()
    assert min(norms) > 0.5
    assert max(norms) < 100
    torch.testing.assert_close(weights(objective), weights(reference))


def test_every_epoch_visits_every_cell_once_in_a_new_order(tmp_path):
    data = Cells()
    run(tmp_path, training=data, cells=120)
    epochs = [np.concatenate(data.seen[start : start + 5]) for start in (0, 5, 10)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(N_CELLS))
    assert len({tuple(epoch) for epoch in epochs} | {tuple(range(N_CELLS))}) == 4


def test_accumulated_batches_are_the_full_batch(tmp_path):
    whole, _ = run(tmp_path / "whole", Regression(1.0), cells=240)
    for accumulation in (2, 4, 8):
        cut, _ = run(tmp_path / f"cut{accumulation}", Regression(1.0), cells=240, gradient_accumulation=accumulation)
        torch.testing.assert_close(weights(cut), weights(whole), atol=1e-5, rtol=1e-5)
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "cut4"), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)


def test_validation_is_the_mean_over_all_validation_cells_with_the_same_noise_each_time(tmp_path):
    # With no learning to speak of, every validation must give the same number.
    validation = Cells(19, seed=4)
    objective, result = run(tmp_path, Regression(1.0), validation, learning_rate=1e-12)
    losses = [line["validation_loss"] for line in lines(tmp_path)]
    assert len(losses) == 10
    assert np.ptp(losses) < 1e-6
    # 19 cells come in blocks of 8, 8 and 3, each with the noise of its own generator.
    noise = [torch.randn(n, generator=torch_rng(0, "vae/validation", k, "cpu")) for k, n in enumerate((8, 8, 3))]
    expected = objective(validation[np.arange(19)], {"target": torch.cat(noise)})["loss"].mean()
    assert losses[0] == pytest.approx(expected.item(), rel=1e-6)
    assert result.best_loss == pytest.approx(losses[0], rel=1e-6)


def test_logged_training_loss_is_the_mean_since_the_last_line(tmp_path):
    class Constant(Regression):
        def forward(self, batch, noise):
            losses = super().forward(batch, noise)
            return {"loss": losses["loss"], "cell": batch.depth}

    data = Cells()
    run(tmp_path, Constant(), training=data, cells=160, validate_every=40)
    # An epoch, five batches, has every cell once, so the mean of a column of the data is known.
    for line in lines(tmp_path):
        assert line["train_cell"] == pytest.approx(data.depth.mean().item(), rel=1e-5)
    assert [line["step"] for line in lines(tmp_path)] == [5, 10, 15, 20]
    assert [line["cells"] for line in lines(tmp_path)] == [40, 80, 120, 160]


# The average, early stopping ------------------------------------------------------------------------------------


def averages(path: dict[int, torch.Tensor], decay: float) -> dict[int, torch.Tensor]:
    """Average of the weights after every step, from the weights themselves."""
    result = {0: weights(Regression())}
    for step in sorted(path):
        share = min(decay, (1 + step) / (10 + step))
        result[step] = share * result[step - 1] + (1 - share) * path[step]
    return result


@pytest.mark.parametrize("keep", ["best", "last"])
def test_network_is_left_with_the_averaged_weights_asked_for(tmp_path, keep):
    """Validation cells that contradict the training cells: the best average is the one of the first validation."""
    path: dict[int, torch.Tensor] = {}
    objective = Regression()
    _, result = run(
        tmp_path,
        objective,
        Cells(16, seed=1, flip=-1.0),
        on_step=lambda step: path.update({step: weights(objective)}),
        patience=3.0,
        ema_decay=0.5,
        keep=keep,
    )
    # Best after 80 cells; three times as many without improvement are waited for.
    assert result.stopped_early
    assert result.best_cells == 80
    assert 80 * 4 <= result.cells <= 80 * 4 + 8
    losses = [line["validation_loss"] for line in lines(tmp_path)]
    assert losses[0] == min(losses) == result.best_loss
    average = averages(path, 0.5)
    kept = average[10 if keep == "best" else max(path)]
    torch.testing.assert_close(weights(objective), kept, atol=1e-6, rtol=1e-5)
    assert (average[10] - average[max(path)]).abs().max() > 0.1


def test_a_stage_never_stops_before_its_first_validation(tmp_path):
    _, result = run(tmp_path, cells=400, validate_every=320, patience=0.01)
    assert math.isfinite(result.best_loss)
    assert result.cells >= 320


def test_patience_is_at_least_that_multiple_of_the_warm_up(tmp_path):
    _, result = run(tmp_path, validation=Cells(16, seed=1, flip=-1.0), patience=1.0, warmup_cells=400)
    assert result.cells - result.best_cells > 400 or not result.stopped_early


def test_patience_of_zero_never_stops(tmp_path):
    _, result = run(tmp_path, validation=Cells(16, seed=1, flip=-1.0))
    assert result.cells == 800
    assert not result.stopped_early


def test_divergence_is_reported_with_its_remedy(tmp_path):
    class Broken(Regression):
        def forward(self, batch, noise):
            losses = super().forward(batch, noise)
            return {"loss": losses["loss"] * (1.0 if self.training else math.nan)}

    with pytest.raises(UserError, match=r"vae stage is nan after 80 cells.*lower its learning_rate"):
        run(tmp_path, Broken())


def test_batch_that_cannot_be_cut_equally_is_refused(tmp_path):
    # Five cells only: the batch of 8 becomes one of 5.
    with pytest.raises(UserError, match=r"batch of 5 cells cannot be cut into 2 equal parts"):
        run(tmp_path, training=Cells(5), gradient_accumulation=2)


def test_seed_decides_everything(tmp_path):
    first, again, other = (run(tmp_path / str(i), Regression(1.0), seed=s)[0] for i, s in enumerate((3, 3, 4)))
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_data_workers_change_nothing(tmp_path):
    alone, _ = run(tmp_path / "0", cells=80)
    helped, _ = run(tmp_path / "2", cells=80, data_workers=2)
    assert torch.equal(weights(alone), weights(helped))


def test_noise_differs_by_seed_stage_and_step():
    rngs = [torch_rng(seed, name, k, "cpu") for seed in (0, 1) for name in ("vae", "prior") for k in range(50)]
    assert len({tuple(torch.randn(4, generator=rng).tolist()) for rng in rngs}) == 200


# Resuming ----------------------------------------------------------------------------------------------------------


class Killed(Exception):  # noqa: N818 - a kill, not an error
    pass


@pytest.mark.parametrize("kill_at", [1, 7, 13, 100])
def test_interrupted_stage_ends_like_an_uninterrupted_one(tmp_path, kill_at):
    whole, expected = run(tmp_path / "whole", Regression(1.0), ema_decay=0.9)

    def on_step(step):
        if step == kill_at:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "cut", Regression(1.0), ema_decay=0.9, on_step=on_step)
    resumed, result = run(tmp_path / "cut", Regression(1.0), ema_decay=0.9)
    assert torch.equal(weights(resumed), weights(whole))
    assert result == expected
    for a, b in zip(lines(tmp_path / "whole"), lines(tmp_path / "cut"), strict=True):
        assert {**a, "cells_per_second": 0} == {**b, "cells_per_second": 0}


def test_early_stop_survives_an_interruption(tmp_path):
    contrary = Cells(16, seed=1, flip=-1.0)
    whole, expected = run(tmp_path / "whole", validation=contrary, patience=3.0, checkpoint_every=8)

    def on_step(step):
        if step == 40:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "cut", validation=contrary, patience=3.0, checkpoint_every=8, on_step=on_step)
    resumed, result = run(tmp_path / "cut", validation=contrary, patience=3.0, checkpoint_every=8)
    assert result == expected
    assert result.stopped_early
    assert torch.equal(weights(resumed), weights(whole))


# Before the first checkpoint, at a validation, at a checkpoint, after the last step.
@pytest.mark.parametrize(("stage", "step"), [("vae", 3), ("vae", 20), ("prior", 7), ("prior", 30)])
def test_killed_process_resumes_to_the_same_bits(tmp_path, trained_run, stage, step):
    model, finished = trained_run
    assert tiny.in_processes(tiny.train_until_killed, tmp_path, stage, step) == [-9]
    assert (tmp_path / "vae.safetensors").exists() == (stage == "prior")
    resumed = tiny.tiny_model()
    resumed.train(tmp_path, accelerator=Accelerator(cpu=True))
    for name in ("vae.safetensors", "prior.safetensors"):
        ours, theirs = load_file(tmp_path / name), load_file(finished / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert resumed.hash() == model.hash()
    assert resumed.training_summary == model.training_summary
    pairs = list(zip(lines(tmp_path), lines(finished), strict=True))
    assert len(pairs) == 6
    for a, b in pairs:
        assert {**a, "cells_per_second": 0} == {**b, "cells_per_second": 0}


# Data workers ----------------------------------------------------------------------------------------------------


def to_workers(number: int):
    """Send a signal to the data workers behind the second step."""

    def send(step: int) -> None:
        if step == 2:
            workers = multiprocessing.active_children()
            assert workers
            for worker in workers:
                os.kill(worker.pid, number)

    return send


class Unreadable(Cells):
    """A file that cannot be read any more."""

    def __getitem__(self, indices):
        raise UserError("the file is gone")


def test_data_workers_leave_stops_to_the_trainer(tmp_path):
    plain, _ = run(tmp_path / "a", cells=160)
    for number in (signal.SIGTERM, signal.SIGINT):
        told, _ = run(tmp_path / str(number), cells=160, data_workers=1, on_step=to_workers(number))
        assert torch.equal(weights(told), weights(plain))


def test_a_data_worker_that_dies_is_told_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"a data worker died .*fewer data_workers"):
        run(tmp_path, cells=80_000, data_workers=1, on_step=to_workers(signal.SIGKILL))


@pytest.mark.parametrize("data_workers", [0, 1])
def test_what_cannot_be_read_is_told_without_a_traceback(tmp_path, data_workers):
    with pytest.raises(UserError) as refusal:
        run(tmp_path, training=Unreadable(), data_workers=data_workers)
    assert str(refusal.value) == "the file is gone"

"""A working directory is continued by the run that made it, whatever may change without changing the outcome."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from scldm.config import RunConfig
from scldm.errors import UserError
from scldm.seals import read_sealed
from scldm.training.workspace import continues, open_workspace

IDENTITY = {"config": {"seed": 0, "vae": {"width": 8}}, "schema": {"genes": ["A", "B"]}}


def test_a_new_directory_is_marked_and_then_continued(tmp_path):
    work = tmp_path / "work"
    assert not continues(work, IDENTITY)
    assert not open_workspace(work, IDENTITY, Accelerator(cpu=True))
    assert [p.name for p in work.iterdir()] == ["run.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["work"]
    (work / "checkpoint").mkdir()
    assert open_workspace(work, IDENTITY, Accelerator(cpu=True))
    assert (work / "checkpoint").exists()


def test_an_empty_directory_becomes_a_workspace(tmp_path):
    (tmp_path / "work").mkdir()
    assert not open_workspace(tmp_path / "work", IDENTITY, Accelerator(cpu=True))
    assert continues(tmp_path / "work", IDENTITY)


def test_another_run_is_refused_by_what_differs_and_replaced_only_on_demand(tmp_path):
    work = tmp_path / "work"
    open_workspace(work, IDENTITY, Accelerator(cpu=True))
    (work / "checkpoint").mkdir()
    other = {**IDENTITY, "config": {"seed": 0, "vae": {"width": 16}}}
    with pytest.raises(UserError, match=r"has another vae\.width; repeat what it was started with"):
        open_workspace(work, other, Accelerator(cpu=True))
    assert (work / "checkpoint").exists()
    assert not open_workspace(work, other, Accelerator(cpu=True), overwrite=True)
    assert read_sealed(work / "run.json") == other
    assert [p.name for p in work.iterdir()] == ["run.json"]


def test_what_is_not_a_run_is_never_touched(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not an unfinished run"):
            open_workspace(work, IDENTITY, Accelerator(cpu=True), overwrite)
    assert (work / "thesis.txt").read_text() == "mine"


class Killed(Exception):  # noqa: N818 - a kill, not an error
    pass


def interrupted(directory: Path) -> RunConfig:
    """Train until shortly after the second checkpoint of the first stage, and return the configuration."""

    def on_step(stage: str, step: int) -> None:
        if (stage, step) == ("vae", 16):
            raise Killed

    model = tiny.tiny_model()
    with pytest.raises(Killed):
        model.train(directory, accelerator=Accelerator(cpu=True), on_step=on_step)
    return model.config


def test_settings_that_change_no_outcome_do_not_bind_a_run(tmp_path, trained_run):
    """Continued with others, it ends with the bits of a run that was never interrupted."""
    config = interrupted(tmp_path)
    stages = {
        name: dataclasses.replace(getattr(config, name), data_workers=1, checkpoint_every=120)
        for name in ("vae_training", "prior_training")
    }
    tracking = dataclasses.replace(config.tracking, project="another", name="renamed")
    resumed = tiny.tiny_model(dataclasses.replace(config, tracking=tracking, **stages))
    steps: list[tuple[str, int]] = []
    resumed.train(tmp_path, accelerator=Accelerator(cpu=True), on_step=lambda *step: steps.append(step))
    assert steps[0] == ("vae", 15)
    _, finished = trained_run
    for name in ("vae.safetensors", "prior.safetensors", "few-step.safetensors"):
        ours, theirs = load_file(tmp_path / name), load_file(finished / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_settings_that_change_the_outcome_bind_a_run(tmp_path):
    config = interrupted(tmp_path)
    faster = dataclasses.replace(config.prior_training, learning_rate=1e-2)
    for change, name in (
        ({"prior_training": faster}, r"prior_training\.learning_rate"),
        ({"seed": 1}, "seed"),
        ({"seeding": "32-bit"}, "seeding"),
    ):
        with pytest.raises(UserError, match=f"has another {name}"):
            tiny.tiny_model(dataclasses.replace(config, **change)).train(tmp_path, accelerator=Accelerator(cpu=True))

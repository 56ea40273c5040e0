from __future__ import annotations

import dataclasses
import json
import sys
import types

import pytest
import tiny

from scldm.config import RunConfig, TrackingConfig
from scldm.errors import UserError
from scldm.training.tracking import MetricsLog, check_tracking


def steps(path, stage="vae"):
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [entry["step"] for entry in entries if entry["stage"] == stage]


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for stage in ("vae", "prior"):
        for step in (10, 20, 30):
            log.write(stage, step, step * 8, {"train_loss": step / 3})
    return log


def test_lines_are_json_with_stage_step_cells_and_metrics(log):
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert len(lines) == 6
    assert lines[1] == {"stage": "vae", "step": 20, "cells": 160, "train_loss": 20 / 3}


def test_rewinding_forgets_later_lines_of_that_stage_only(log):
    log.rewind("vae", 20)
    assert steps(log.path) == [10, 20]
    assert steps(log.path, "prior") == [10, 20, 30]
    log.rewind("prior", 0)
    assert steps(log.path, "prior") == []


def test_line_cut_off_by_a_kill_is_dropped(log):
    with log.path.open("a") as file:
        file.write('{"stage": "vae", "st')
    log.rewind("vae", 25)
    log.write("vae", 40, 320, {"train_loss": 1.0})
    assert steps(log.path) == [10, 20, 40]


def test_other_processes_write_nothing(tmp_path):
    log = MetricsLog(None, TrackingConfig(wandb=True))
    log.rewind("vae", 0)
    log.write("vae", 1, 8, {"train_loss": 1.0})
    log.close()
    assert list(tmp_path.iterdir()) == []


class FakeRun:
    def __init__(self, identifier):
        self.id = identifier
        self.logged, self.finished = [], False

    def log(self, metrics):
        self.logged.append(metrics)

    def finish(self):
        self.finished = True


@pytest.fixture
def fake_wandb(monkeypatch):
    fake = types.ModuleType("wandb")
    fake.calls, fake.runs = [], []

    def init(**arguments):
        fake.calls.append(arguments)
        fake.runs.append(FakeRun(arguments["id"] or f"run{len(fake.runs)}"))
        return fake.runs[-1]

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    return fake


@pytest.mark.parametrize(
    ("environment", "file", "is_found"),
    [
        ({}, None, False),
        ({"WANDB_API_KEY": "0" * 40}, None, True),
        ({"WANDB_MODE": "offline"}, None, True),
        ({"WANDB_MODE": "disabled"}, None, True),
        ({}, "machine api.wandb.ai login user password secret", True),
        ({}, "machine another.host login user password secret", False),
        ({"WANDB_BASE_URL": "https://wandb.example.org"}, "machine wandb.example.org login u password s", True),
        ({}, "no netrc at all", False),
    ],
)
def test_a_missing_login_is_found_before_the_training(tmp_path, fake_wandb, monkeypatch, environment, file, is_found):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"NETRC": str(tmp_path / "netrc"), **environment}.items():
        monkeypatch.setenv(name, value)
    if file is not None:
        (tmp_path / "netrc").write_text(file)
        (tmp_path / "netrc").chmod(0o600)
    if is_found:
        check_tracking(TrackingConfig(wandb=True))
    else:
        with pytest.raises(UserError, match="wandb login"):
            check_tracking(TrackingConfig(wandb=True))
    assert fake_wandb.calls == []


def test_wandb_gets_config_and_metrics_and_is_continued_under_its_id(tmp_path, fake_wandb):
    config = RunConfig(seed=7, tracking=TrackingConfig(wandb=True, project="cells", name="first"))
    for _ in range(2):
        log = MetricsLog(tmp_path / "metrics.jsonl", config.tracking, config.to_dict())
        log.write("vae", 5, 40, {"validation_loss": 2.5})
        log.close()
    first, second = fake_wandb.calls
    assert (first["project"], first["name"], first["config"]["seed"]) == ("cells", "first", 7)
    assert "dir" not in first
    assert (first["id"], second["id"], second["resume"]) == (None, "run0", "allow")
    assert fake_wandb.runs[0].logged == [{"vae/cells": 40, "vae/validation_loss": 2.5}]
    assert fake_wandb.runs[0].finished
    assert steps(tmp_path / "metrics.jsonl") == [5, 5]


def test_wandb_is_left_alone_unless_asked_for(tmp_path, fake_wandb):
    MetricsLog(tmp_path / "metrics.jsonl", TrackingConfig(), {}).write("vae", 1, 8, {"train_loss": 1.0})
    assert fake_wandb.calls == []


def test_missing_wandb_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb is not installed; run 'pip install wandb'"):
        MetricsLog(tmp_path / "metrics.jsonl", TrackingConfig(wandb=True))


def test_wandb_works_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    plain = tiny.tiny_model().config
    prior = dataclasses.replace(plain.prior, few_step_evaluations=())
    config = RunConfig(**{**vars(plain), "prior": prior, "tracking": TrackingConfig(wandb=True, name="offline")})
    tiny.tiny_model(config).train(tmp_path / "run")
    # Not in the working directory, which scldm train removes: an offline run is uploaded afterwards.
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 1
    assert len(steps(tmp_path / "run" / "metrics.jsonl", "prior")) == 3

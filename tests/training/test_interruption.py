"""SIGTERM and SIGINT: the step is finished, a checkpoint written, and the same command ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from accelerate import Accelerator

from scldm.seals import read_sealed
from scldm.training.interruption import StoppedError, deferred_stops, stop_is_asked_for, stops_with_a_word

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """A command line, without its output, whose training takes seconds."""
    directory = tmp_path_factory.mktemp("interrupted")
    tiny.tiny_adata().write_h5ad(directory / "cells.h5ad")
    values = tiny.tiny_config(vae=tiny.tiny_vae()).to_dict()
    values["data"] |= {"path": str(directory / "cells.h5ad"), "conditions": ["cell_type"]}
    for stage in ("vae_training", "prior_training"):
        values[stage] |= {"cells": 240, "checkpoint_every": 96}
    (directory / "run.yaml").write_text(yaml.safe_dump(values))
    return ["train", str(directory / "run.yaml"), "--device", "cpu", "--output"]


@pytest.fixture(scope="module")
def straight(words, tmp_path_factory) -> dict[int, Path]:
    """Model directories of runs that were left alone, by their number of processes."""
    directories = {}
    for n_processes in (1, 2):
        directories[n_processes] = tmp_path_factory.mktemp("straight") / "model"
        line = [*words, str(directories[n_processes])]
        log = directories[n_processes].parent / "log"
        assert tiny.in_processes(tiny.command, log, *line, n_processes=n_processes) == [0] * n_processes
    return directories


@pytest.mark.parametrize(
    ("number", "stage", "step", "n_processes", "rank"),
    [
        (signal.SIGTERM, "vae", 3, 1, 0),
        (signal.SIGINT, "prior", 10, 1, 0),
        (signal.SIGTERM, "prior", 3, 2, 1),
        (signal.SIGKILL, "vae", 6, 2, 0),
    ],
    ids=["SIGTERM", "SIGINT at the last step", "SIGTERM to one of two", "SIGKILL of one of two"],
)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    words, straight, tmp_path, number, stage, step, n_processes, rank
):
    line = [*words, str(tmp_path / "model")]
    codes = tiny.in_processes(
        tiny.command_with_signal, tmp_path / "log", int(number), stage, step, rank, *line, n_processes=n_processes
    )
    if number == signal.SIGKILL:
        assert codes[rank] == -number
    else:
        assert codes == [128 + number] * n_processes
        said = (tmp_path / "log").read_text()
        assert "a checkpoint is written; the same command continues the run in" in said
        assert "Traceback" not in said
        progress = read_sealed(tmp_path / f"model.training/{stage}-checkpoint/checkpoint.json")["progress"]
        assert progress["step"] == step
    assert not (tmp_path / "model").exists()
    assert tiny.in_processes(tiny.command, tmp_path / "log", *line, n_processes=n_processes) == [0] * n_processes
    for name in ("vae.safetensors", "prior.safetensors"):
        assert (tmp_path / "model" / name).read_bytes() == (straight[n_processes] / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "model"]


def test_handlers_are_the_callers_again():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stops_with_a_word(), deferred_stops():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def interrupted(*numbers: int) -> list[bool]:
    """Whether a stop is asked for after each of some signals."""
    alone, asked = Accelerator(cpu=True), []
    with deferred_stops():
        for number in numbers:
            os.kill(os.getpid(), number)
            asked.append(stop_is_asked_for(1, alone))
    return asked


def test_a_stop_that_nobody_asked_about_is_raised_at_the_end():
    with pytest.raises(StoppedError, match="SIGTERM") as stop:
        interrupted(signal.SIGTERM, signal.SIGTERM)
    assert stop.value.signal_number == signal.SIGTERM
    assert not stop.value.has_checkpoint
    assert interrupted() == []


def test_a_second_interrupt_ends_at_once():
    with pytest.raises(StoppedError, match="SIGINT"):
        interrupted(signal.SIGINT, signal.SIGINT)


@pytest.mark.slow
def test_kills_at_a_few_moments():
    """A minute of what takes an hour: see benchmarks/kills.py."""
    script = [sys.executable, str(BENCHMARKS / "kills.py"), "--moments", "2", "--phases", "vae", "saving", "tidying"]
    run = subprocess.run(script, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout

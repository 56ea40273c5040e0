from __future__ import annotations

import os

import pytest
import torch

from scldm import files
from scldm.seals import read_sealed
from scldm.training.state import Checkpoint, load_checkpoint, save_checkpoint


def checkpoint(step: int) -> Checkpoint:
    tensors = {
        "model": {"network.weight": torch.full((2, 3), float(step)), "a/b": torch.arange(4)},
        "optimizer": {"0/step": torch.tensor(float(step))},
        "best": {},
    }
    return Checkpoint(tensors, {"step": step, "best_loss": 0.1 + step, "name": "vae"})


def assert_is(loaded: Checkpoint | None, step: int) -> None:
    assert loaded is not None
    assert loaded.progress == {"step": step, "best_loss": 0.1 + step, "name": "vae"}
    assert torch.equal(loaded.tensors["model"]["network.weight"], torch.full((2, 3), float(step)))
    assert torch.equal(loaded.tensors["model"]["a/b"], torch.arange(4))
    assert loaded.tensors["optimizer"]["0/step"].item() == step


def test_checkpoint_round_trip(tmp_path):
    assert load_checkpoint(tmp_path / "none") is None
    save_checkpoint(checkpoint(3), tmp_path / "deep" / "checkpoint")
    assert_is(load_checkpoint(tmp_path / "deep" / "checkpoint"), 3)


def test_newer_checkpoint_replaces_the_older_one(tmp_path):
    save_checkpoint(checkpoint(9), tmp_path)
    save_checkpoint(checkpoint(10), tmp_path)
    assert_is(load_checkpoint(tmp_path), 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.json", "step-000000010.safetensors"]


class Killed(BaseException):
    pass


# A kill may come between any two of these: each file is flushed, renamed, and its new name flushed.
@pytest.mark.parametrize(
    ("function", "call", "left"),
    [("_flush", 1, 1), ("replace", 1, 1), ("_flush", 2, 1), ("_flush", 3, 1), ("replace", 2, 1), ("_flush", 4, 2)],
)
def test_killed_while_saving_leaves_the_old_checkpoint_or_the_new_one(tmp_path, monkeypatch, function, call, left):
    save_checkpoint(checkpoint(1), tmp_path)
    owner, calls = (files, 0) if function == "_flush" else (os, 0)
    original = getattr(owner, function)

    def dying(*args):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, dying)
        with pytest.raises(Killed):
            save_checkpoint(checkpoint(2), tmp_path)
    assert_is(load_checkpoint(tmp_path), left)
    # And the next one cleans up.
    save_checkpoint(checkpoint(3), tmp_path)
    assert_is(load_checkpoint(tmp_path), 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.json", "step-000000003.safetensors"]


def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path):
    save_checkpoint(checkpoint(1), tmp_path)
    begun = tmp_path / ".step-000000002.safetensors.partial-x1y2z3"
    begun.mkdir()
    (begun / "step-000000002.safetensors").write_bytes(b"half")
    save_checkpoint(checkpoint(3), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.json", "step-000000003.safetensors"]


def test_progress_keeps_every_digit(tmp_path):
    value = 0.1 + 0.2
    save_checkpoint(Checkpoint({"model": {"w": torch.zeros(1)}}, {"step": 1, "best_loss": value}), tmp_path)
    assert load_checkpoint(tmp_path).progress["best_loss"] == value
    assert read_sealed(tmp_path / "checkpoint.json")["tensors"] == "step-000000001.safetensors"

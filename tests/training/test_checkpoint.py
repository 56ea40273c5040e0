from __future__ import annotations

import json
import os

import pytest
import torch

from scldm.training import checkpoint as module
from scldm.training.checkpoint import Checkpoint, atomic_directory, load_checkpoint, save_checkpoint


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


# A kill may come between any two of these: both files are flushed, then renamed.
@pytest.mark.parametrize(("function", "call"), [("_flush", 1), ("replace", 1), ("_flush", 2), ("replace", 2)])
def test_killed_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch, function, call):
    save_checkpoint(checkpoint(1), tmp_path)
    owner, calls = (module, 0) if function == "_flush" else (os, 0)
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
    assert_is(load_checkpoint(tmp_path), 1)
    # And the next one cleans up.
    save_checkpoint(checkpoint(3), tmp_path)
    assert_is(load_checkpoint(tmp_path), 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.json", "step-000000003.safetensors"]


def test_progress_keeps_every_digit(tmp_path):
    value = 0.1 + 0.2
    save_checkpoint(Checkpoint({"model": {"w": torch.zeros(1)}}, {"step": 1, "best_loss": value}), tmp_path)
    assert load_checkpoint(tmp_path).progress["best_loss"] == value
    assert json.loads((tmp_path / "checkpoint.json").read_text())["tensors"] == "step-000000001.safetensors"


def test_directory_appears_whole(tmp_path):
    destination = tmp_path / "model"
    with atomic_directory(destination) as partial:
        (partial / "a.txt").write_text("a")
        assert not destination.exists()
    assert (destination / "a.txt").read_text() == "a"
    assert list(tmp_path.iterdir()) == [destination]


def test_directory_does_not_appear_when_filling_it_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "model") as partial:
        (partial / str(1 / len(list(partial.iterdir())))).write_text("a")
    assert list(tmp_path.iterdir()) == []


def test_existing_directory_is_replaced_only_on_demand(tmp_path):
    destination = tmp_path / "model"
    destination.mkdir()
    (destination / "old.txt").write_text("old")
    with pytest.raises(FileExistsError), atomic_directory(destination) as partial:
        (partial / "new.txt").write_text("new")
    assert [p.name for p in destination.iterdir()] == ["old.txt"]
    with pytest.raises(RuntimeError, match="half way"), atomic_directory(destination, overwrite=True):
        raise RuntimeError("half way")
    assert [p.name for p in destination.iterdir()] == ["old.txt"]
    with atomic_directory(destination, overwrite=True) as partial:
        (partial / "new.txt").write_text("new")
    assert [p.name for p in destination.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [destination]

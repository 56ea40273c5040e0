"""Damaged working directories: the same command ends in the same model, or is refused in one sentence."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import mutations
import numpy as np
import outcomes
import pytest
import tiny
import yaml

from scldm.training.stage import _Stage

pytestmark = pytest.mark.slow

WEIGHTS = ("vae.safetensors", "prior.safetensors", "schema.json")


def damage(work: Path, rng: np.random.Generator) -> str:
    """Damage a file of a working directory somehow, and say which."""
    files = sorted(path for path in work.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    name, kind = (
        path.relative_to(work),
        str(rng.choice(["bytes", "bytes", "content", "remove", "swap", "directory", "empty"])),
    )
    if kind == "bytes":
        path.write_bytes(mutations.mutated_bytes(path.read_bytes(), rng))
    elif kind == "content":
        path = path if path.suffix == ".json" else work / "run.json"
        path.write_bytes(mutations.mutated_json(path.read_text(), rng).encode(errors="surrogateescape"))
    elif kind == "swap":
        other = files[int(rng.integers(len(files)))]
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if kind == "directory":
            path.mkdir()
    return f"{kind} of {name}"


def test_damaged_working_directories(tmp_path):
    tiny.tiny_adata().write_h5ad(tmp_path / "cells.h5ad")
    values = tiny.tiny_config(vae=tiny.tiny_vae()).to_dict()
    values["data"] |= {"path": str(tmp_path / "cells.h5ad"), "conditions": ["cell_type"], "backed": True}
    for stage in ("vae_training", "prior_training"):
        values[stage] |= {"cells": 120, "checkpoint_every": 24, "validate_every": 48, "warmup_cells": 24}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    words = ["train", tmp_path / "run.yaml", "--output", tmp_path / "model", "--device", "cpu"]
    model, work = tmp_path / "model", tmp_path / "model.training"

    def dies_at(stage: str, step: int):
        def before() -> None:
            train = _Stage._train_step

            def dying(self, batch) -> None:
                train(self, batch)
                if (self.name, self.state.step) == (stage, step):
                    os.kill(os.getpid(), signal.SIGKILL)

            _Stage._train_step = dying

        return before

    assert outcomes.run_command(words).status == 0
    expected = {name: (model / name).read_bytes() for name in WEIGHTS}
    shutil.rmtree(model)
    stopped = []
    for stage, step in (("vae", 4), ("prior", 3)):
        assert outcomes.run_command(words, before=dies_at(stage, step)).status == -signal.SIGKILL
        stopped.append(Path(shutil.copytree(work, tmp_path / f"stopped-{stage}")))
        shutil.rmtree(work)
    failures = []
    for number in range(outcomes.N_MUTANTS):
        rng = np.random.default_rng([5, number])
        shutil.copytree(stopped[number % 2], work)
        how = damage(work, rng)
        outcome = outcomes.run_command(words)
        try:
            outcomes.check(outcome, set())
            if outcome.status == 0:
                for name in WEIGHTS:
                    assert (model / name).read_bytes() == expected[name], f"{name} is another"
            else:
                assert not model.exists()
        except AssertionError as error:
            failures.append(f"{number}: {how}: {error}")
        for directory in (work, model):
            shutil.rmtree(directory, ignore_errors=True)
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], how
    assert not failures, f"{len(failures)} of {outcomes.N_MUTANTS}:\n" + "\n".join(failures[:20])

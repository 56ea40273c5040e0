"""Damaged model directories: the cells are those of the model, or it is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import mutations
import numpy as np
import outcomes
import pytest

from scldm.seals import write_sealed
from scldm.storage.directory import FILES, SEAL

pytestmark = pytest.mark.slow


def damage(directory: Path, rng: np.random.Generator) -> str:
    """Damage a model directory somehow, and say how."""
    name = str(rng.choice([*FILES, SEAL, "metrics.jsonl"]))
    path = directory / name
    kind = str(rng.choice(["bytes", "content", "content", "header", "remove", "swap", "directory", "fifo", "link"]))
    if kind == "bytes" or (kind in ("content", "header") and name == "metrics.jsonl"):
        path.write_bytes(mutations.mutated_bytes(path.read_bytes(), rng))
        return f"bytes of {name}"
    if kind == "content":
        path = path if path.suffix == ".json" else directory / "config.json"
        path.write_bytes(mutations.mutated_json(path.read_text(), rng).encode(errors="surrogateescape"))
    elif kind == "header":
        path = path if path.suffix == ".safetensors" else directory / "vae.safetensors"
        whole = path.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        header = mutations.mutated_json(whole[8 : 8 + length].decode(), rng).encode(errors="surrogateescape")
        path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + length :])
    elif kind == "swap":
        first, second = directory / "vae.safetensors", path if path.name != "vae.safetensors" else directory / SEAL
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)
    else:
        path.unlink()
        if kind == "directory":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(rng.choice(["nowhere", path.name, "/dev/zero", "config.json", "."]))
    # Half of the damage is done by someone who knows of the checksums.
    is_whole = all(p.is_file() and not p.is_symlink() for p in (directory / other for other in FILES))
    if rng.random() < 0.5 and is_whole and name != SEAL:
        write_sealed(directory / SEAL, {}, [directory / other for other in FILES])
        kind += ", sealed"
    return f"{kind} of {name}"


def test_damaged_models(model_dir, tmp_path):
    failures = []
    for number in range(outcomes.N_MUTANTS):
        rng = np.random.default_rng([1, number])
        place = tmp_path / str(number)
        shutil.copytree(model_dir, place / "model")
        how = damage(place / "model", rng)
        words = ["info", place / "model"]
        if number % 2:
            words = [
                "sample",
                place / "model",
                "--n-cells",
                2,
                "--steps",
                1,
                "--output",
                place / "cells.h5ad",
                "--device",
                "cpu",
            ]
        before = outcomes.listing(place)
        outcome = outcomes.run_command(words)
        try:
            outcomes.check(outcome, outcomes.listing(place) - before, allowed=lambda name: name == "cells.h5ad")
        except AssertionError as error:
            failures.append(f"{number}: {how}: {error}")
        shutil.rmtree(place)
    assert not failures, f"{len(failures)} of {outcomes.N_MUTANTS}:\n" + "\n".join(failures[:20])


def test_the_mutants_are_not_all_alike(model_dir, tmp_path):
    kinds = set()
    for number in range(60):
        shutil.copytree(model_dir, tmp_path / str(number))
        kinds.add(damage(tmp_path / str(number), np.random.default_rng([1, number])))
    assert len(kinds) > 20
    assert json.loads((model_dir / "config.json").read_text())

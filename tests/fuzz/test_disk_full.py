"""A disk that is full at any moment: one sentence, nothing half-written or lost, and with room the command works."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import outcomes
import pytest
import tiny
import yaml


def files_up_to(n_bytes: int) -> Callable[[], None]:
    """Let no file grow beyond a size: what writes on is told so, as on a full disk."""

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return before


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny.tiny_adata().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path


def commands(model_dir: Path, place: Path) -> dict[str, list[object]]:
    output, cells = place / "made.h5ad", place / "cells.h5ad"
    return {
        "sample": ["sample", model_dir, "--n-cells", 300, "--steps", 1, "--output", output, "--device", "cpu"],
        "encode": ["encode", model_dir, cells, "--output", output, "--device", "cpu"],
        "evaluate": ["evaluate", cells, cells, "--output", place / "judged", "--embedding", "pca"],
    }


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
@pytest.mark.parametrize("name", ["sample", "encode"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(model_dir, place, name, share):
    words = commands(model_dir, place)[name]
    assert outcomes.run_command(words).status == 0
    whole = (place / "made.h5ad").read_bytes()
    before = outcomes.listing(place)
    # What it prints goes to a file here as well.
    limit = max(4096, int(share * len(whole)))
    outcome = outcomes.run_command([*words, "--overwrite"], before=files_up_to(limit))
    assert outcome.status == 2
    outcomes.check(outcome, outcomes.listing(place) - before)
    assert "made.h5ad" in outcome.err
    assert "File too large" in outcome.err
    assert (place / "made.h5ad").read_bytes() == whole
    assert outcomes.run_command([*words, "--overwrite"]).status == 0


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 16, 64, 200])
def test_a_report_that_does_not_fit_is_not_there(model_dir, place, kilobytes):
    words = commands(model_dir, place)["evaluate"]
    before = outcomes.listing(place)
    outcome = outcomes.run_command(words, before=files_up_to(kilobytes * 1024))
    assert outcome.status == 2
    outcomes.check(outcome, outcomes.listing(place) - before)
    again = outcomes.run_command(words)
    assert again.status == 0, again.err


@pytest.mark.slow
@pytest.mark.parametrize("backed", [False, True])
def test_a_training_goes_on_where_the_disk_was_full(place, backed):
    """At every size of file that the run makes: checkpoints, weights, latents, counts, solvers, the model."""
    values = tiny.tiny_config(vae=tiny.tiny_vae()).to_dict()
    values["data"] |= {"path": str(place / "cells.h5ad"), "conditions": ["cell_type"], "backed": backed}
    for stage in ("vae_training", "prior_training"):
        values[stage] |= {"cells": 120, "checkpoint_every": 24, "validate_every": 48, "warmup_cells": 24}
    (place / "run.yaml").write_text(yaml.safe_dump(values))
    words = ["train", place / "run.yaml", "--output", place / "model", "--device", "cpu"]
    assert outcomes.run_command(words).status == 0
    expected = {name: (place / "model" / name).read_bytes() for name in ("vae.safetensors", "prior.safetensors")}
    shutil.rmtree(place / "model")
    refused = 0
    limits = [4096, 6000, 8000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000, 96_000, 128_000, 256_000]
    for limit in limits:
        outcome = outcomes.run_command(words, before=files_up_to(limit))
        if outcome.status == 0:
            shutil.rmtree(place / "model")
            continue
        refused += 1
        assert outcome.status == 2, outcome.err
        assert "Traceback" not in outcome.err
        assert not (place / "model").exists()
        again = outcomes.run_command(words)
        assert again.status == 0, again.err
        for name, content in expected.items():
            assert (place / "model" / name).read_bytes() == content
        assert not [p for p in place.iterdir() if p.name.startswith(".") or p.name.endswith(".training")]
        shutil.rmtree(place / "model")
    assert refused >= 4


@pytest.mark.slow
def test_a_small_disk(model_dir, place):
    """A file system of 200 kB, where this user may mount one."""
    import subprocess

    disk = place / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        words = [
            "sample",
            model_dir,
            "--n-cells",
            3000,
            "--steps",
            1,
            "--output",
            disk / "made.h5ad",
            "--device",
            "cpu",
        ]
        outcome = outcomes.run_command(words)
        assert outcome.status == 2
        outcomes.check(outcome, outcomes.listing(disk))
        assert "No space left" in outcome.err
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["umount", str(disk)], check=False)

"""Odd command lines: they run, or are refused in one sentence."""

from __future__ import annotations

import numpy as np
import outcomes
import pytest
import tiny

pytestmark = pytest.mark.slow

VALUES = (
    "", "-", "--", "=", "0", "-1", "1", "2", "1.5", "nan", "inf", "-inf", "1e30", "1e999", "9" * 5000, "\u0663",
    "true",
    "None", "auto", "cpu", "cuda", "heun", "few_step", "dopri5", "cell_type", "cell_type=T cell", "cell_type=",
    "=T cell",
    "cell_type=T cell=x", "age=40", "age=much", "batch=two", "\x1b[31mred", "a\nb", "\u202ereversed", "x" * 300,
    "x" * 5000, ".", "..", "/", "/dev/null", "/dev/zero", "/proc/self/mem", "nowhere/deep/x.h5ad", "x.h5ad",
    "2/3", "0/0",
    "1/1", "like", "'", '"', "$(true)", "`true`", "{}", "[1]", "é", "\udcff", "--help", "-h", "--version", "--seed=3",
)  # fmt: skip
OPTIONS = (
    "--n-cells", "--steps", "--seed", "--guidance", "--guidance-mode", "--condition", "--depth", "--solver", "--genes",
    "--batch-size", "--part", "--like", "--layer", "--device", "--overwrite", "--output", "--data.path",
    "--dry-run",
    "--data.conditions", "--data.continuous", "--vae.n-latents", "--vae.kl-weight", "--prior.n-layers",
    "--prior.width",
    "--prior-training.learning-rate", "--vae-training.cells", "--vae-training.betas", "--seed", "--precision",
    "--max-cells",
    "--profile", "--embedding", "--model", "--train", "--data.backed", "--data.no-backed",
    "--prior.few-step-evaluations",
    "--fraction", "--group-by", "--config", "--scvi", "--nothing", "-x", "--", "---",
)  # fmt: skip


def test_odd_command_lines(model_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.tiny_adata().write_h5ad(tmp_path / "cells.h5ad")
    config = tiny.write_config(tmp_path / "run.yaml", tmp_path / "cells.h5ad")
    starts = (
        ["sample", model_dir, "--output", "made.h5ad", "--n-cells", "2", "--steps", "1", "--device", "cpu"],
        ["sample", model_dir, "--output", "made.h5ad", "--like", "cells.h5ad", "--steps", "1", "--device", "cpu"],
        ["encode", model_dir, "cells.h5ad", "--output", "made.h5ad", "--device", "cpu"],
        ["train", config, "--dry-run", "--device", "cpu"],
        ["train", "--data.path", "cells.h5ad", "--dry-run", "--device", "cpu"],
        ["info", model_dir],
        ["evaluate", "cells.h5ad", "cells.h5ad", "--output", "judged", "--max-cells", "3"],
        ["benchmark", "cells.h5ad", "--output", "judged", "--max-cells", "3"],
        ["demo", "--output", "cells.h5ad"],
        [],
    )
    failures = []
    for number in range(outcomes.N_MUTANTS):
        rng = np.random.default_rng([4, number])
        words = [str(word) for word in starts[number % len(starts)]]
        for _ in range(int(rng.integers(1, 4))):
            kind = rng.choice(["option", "value", "remove", "replace"])
            place = int(rng.integers(len(words) + 1))
            if kind == "option":
                words[len(words) :] = [str(rng.choice(OPTIONS)), str(rng.choice(VALUES))][: int(rng.integers(1, 3))]
            elif kind == "value":
                words.insert(place, str(rng.choice(VALUES)))
            elif words and place < len(words):
                words[place : place + 1] = [] if kind == "remove" else [str(rng.choice(VALUES))]
        before = outcomes.listing(tmp_path)
        if not words:
            continue
        # A training or a demo that is asked for properly is no odd command line.
        if (words[:1] == ["train"] and "--dry-run" not in words) or (
            words[:1] == ["demo"] and "cells.h5ad" not in words
        ):
            continue
        outcome = outcomes.run_command(words)
        left = outcomes.listing(tmp_path) - before
        try:
            outcomes.check(outcome, left, allowed=lambda name: True)
        except AssertionError as error:
            failures.append(f"{number}: {' '.join(words)[:300]!r}: {error}")
        for name in sorted(left, reverse=True):
            path = tmp_path / name
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    assert not failures, f"{len(failures)} of {outcomes.N_MUTANTS}:\n" + "\n".join(failures[:20])

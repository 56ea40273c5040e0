"""Damaged configurations: they are what they say, or refused in one sentence."""

from __future__ import annotations

import copy

import mutations
import numpy as np
import outcomes
import pytest
import tiny
import yaml

pytestmark = pytest.mark.slow

ODD_LINES = (
    "seed: 1", "a: &a [*a]", "vae: {width: 8}", "? [1]: 2", "<<: 3", "!!python/object:os.system {}", "---", "...", "\t",
    "seed: 1e400", "seed: 0o7", "- 1", "prior: {few_step_evaluations: [1, 1]}", "tracking: {wandb: maybe}", "%YAML 9.9",
    "x: |", "'", "data: {path: /dev/zero}", "data: {path: .}", "vae: &v {width: *v}", "\x85", "\u2028",
    "seed: 2020-99-99",
)  # fmt: skip


def damaged(values: dict, rng: np.random.Generator) -> str:
    """Write a configuration with something wrong in it."""
    values = copy.deepcopy(values)
    if rng.random() < 0.6:
        section = values[str(rng.choice([k for k in values if isinstance(values[k], dict)]))]
        for _ in range(int(rng.integers(1, 3))):
            section[str(rng.choice(list(section)))] = mutations.nonsense(rng)
    text = yaml.safe_dump(values)
    if rng.random() < 0.4:
        lines = text.splitlines()
        for _ in range(int(rng.integers(1, 3))):
            lines.insert(int(rng.integers(len(lines))), str(rng.choice(ODD_LINES)))
        text = "\n".join(lines)
    return text


def test_damaged_configurations(tmp_path):
    tiny.tiny_adata().write_h5ad(tmp_path / "cells.h5ad")
    values = tiny.tiny_config(vae=tiny.tiny_vae()).to_dict()
    values["data"] |= {"path": str(tmp_path / "cells.h5ad"), "conditions": ["cell_type"]}
    failures = []
    for number in range(outcomes.N_MUTANTS):
        rng = np.random.default_rng([3, number])
        content = damaged(values, rng).encode(errors="surrogateescape")
        if rng.random() < 0.3:
            content = mutations.mutated_bytes(content, rng)
        (tmp_path / "run.yaml").write_bytes(content)
        before = outcomes.listing(tmp_path)
        outcome = outcomes.run_command(
            ["train", tmp_path / "run.yaml", "--output", tmp_path / "model", "--dry-run", "--device", "cpu"]
        )
        try:
            outcomes.check(outcome, outcomes.listing(tmp_path) - before)
        except AssertionError as error:
            failures.append(f"{number}: {error}")
    assert not failures, f"{len(failures)} of {outcomes.N_MUTANTS}:\n" + "\n".join(failures[:20])

"""Cells, a configuration and a way to run a command line, all tiny."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tiny

from scldm import benchmark, evaluation
from scldm.cli import main

Run = Callable[..., tuple[str, str]]


@pytest.fixture(scope="session")
def cells_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    tiny.tiny_adata().write_h5ad(path)
    return path


@pytest.fixture
def config_file(tmp_path: Path, cells_file: Path) -> Path:
    return tiny.write_config(tmp_path / "tiny.yaml", cells_file)


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """One halving and few permutations: how good cells are is not what is tested here."""
    quick = partial(evaluation.evaluate, n_halvings=1, n_permutations=39)
    for module in (evaluation, benchmark):
        monkeypatch.setattr(module, "evaluate", quick)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line that has to succeed, and return what it printed to stdout and stderr."""

    def call(*arguments: object) -> tuple[str, str]:
        capsys.readouterr()
        main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "error" not in captured.err
        return captured.out, captured.err

    return call

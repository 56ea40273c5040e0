from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import typing
import warnings
from pathlib import Path

import pytest

import scldm
from scldm import cli
from scldm.cli import main
from scldm.commands import COMMANDS, command
from scldm.config import RunConfig
from scldm.errors import UserError

POSITIONALS = {"model_dir": "MODEL_DIR", "data": "DATA", "real": "REAL", "generated": "GENERATED"}


def shown(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    captured = capsys.readouterr()
    assert stop.value.code == 0
    assert captured.err == ""
    return captured.out


def options_of(kind, prefix="--"):
    """Names of the options of a command, as documented: sections and fields joined by dots, words by dashes."""
    for field in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[field.name]
        name = field.name.replace("_", "-")
        if hint is RunConfig:
            yield from options_of(RunConfig)
        elif dataclasses.is_dataclass(hint):
            yield from options_of(hint, f"{prefix}{name}.")
        elif field.name in POSITIONALS:
            yield POSITIONALS[field.name]
        elif field.name != "config_file":
            yield prefix + name


def test_version(capsys):
    assert shown(["--version"], capsys) == f"scldm {scldm.__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_help_lists_the_commands(words, capsys):
    lines = shown(words, capsys).splitlines()
    for name in ("demo", "train", "sample", "encode", "evaluate", "benchmark", "info"):
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(line.split()) > 3


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_mentions_and_explains_every_option(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    out = shown([name, "--help"], capsys)
    words = out.replace("│", " ").split()
    for option in options_of(command(name)):
        # A flag that is on by default is offered as the flag that turns it off.
        section, _, field = option.rpartition(".")
        assert option in words or f"{section}.no-{field}" in words, option


def test_help_of_train_shows_the_values_of_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "run.yaml").write_text("vae: {n_latents: 2, latent_channels: 5}")
    out = shown(["train", str(tmp_path / "run.yaml"), "--help"], capsys)
    assert "Channels per latent token. (default: 5)" in out


def test_a_module_run_as_a_program_is_the_same_command_line():
    process = subprocess.run(
        [sys.executable, "-m", "scldm", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout == f"scldm {scldm.__version__}\n"
    assert process.stderr == ""


def failing(error):
    @dataclasses.dataclass(frozen=True)
    class Failing:
        """Fail."""

        def run(self):
            raise error

    return Failing


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (UserError("two\n  lines; allowed: 'a'"), 2, "scldm: error: Two lines; allowed: 'a'.\n"),
        (UserError("did you mean 'a'?"), 2, "scldm: error: Did you mean 'a'?\n"),
        (UserError("'x' is there."), 2, "scldm: error: 'x' is there.\n"),
        (PermissionError(13, "Permission denied", "out"), 2, "scldm: error: 'out': Permission denied.\n"),
        (OSError("disk full"), 2, "scldm: error: Disk full.\n"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 2, "not enough memory"),
        (KeyboardInterrupt(), 130, "scldm: interrupted.\n"),
    ],
)
def test_errors_that_are_not_ours_to_mend_are_sentences(error, status, printed, monkeypatch, capsys):
    monkeypatch.setattr("scldm.cli.command", lambda name: failing(error))
    with pytest.raises(SystemExit) as stop:
        main(["info"])
    assert stop.value.code == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert printed in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), ValueError("of ours"), KeyError("ours")])
def test_our_own_mistakes_keep_their_traceback(error, monkeypatch):
    monkeypatch.setattr("scldm.cli.command", lambda name: failing(error))
    with pytest.raises(type(error)):
        main(["info"])


def test_warnings_are_sentences_and_the_filters_are_left_as_they_were(monkeypatch, capsys):
    @dataclasses.dataclass(frozen=True)
    class Warns:
        """Warn."""

        def run(self):
            for _ in range(2):
                warnings.warn("something\nmatters", UserWarning, stacklevel=1)
            warnings.warn("will change", FutureWarning, stacklevel=1)

    monkeypatch.setattr("scldm.cli.command", lambda name: Warns)
    before = warnings.showwarning, list(warnings.filters)
    main(["info"])
    assert capsys.readouterr().err == "scldm: warning: Something matters.\n"
    assert (warnings.showwarning, list(warnings.filters)) == before


def test_importing_the_command_line_does_not_import_what_only_some_commands_need():
    code = "import sys, scldm.cli; print(sorted({'scanpy', 'matplotlib', 'wandb', 'ot'} & set(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
    )
    assert process.stdout == "[]\n"


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_a_terminal_that_cannot_show_a_name_shows_its_escape(tmp_path, environment):
    name = tmp_path / "caf\u00e9.yaml"
    words = [sys.executable, "-m", "scldm", "train", str(name)]
    run = subprocess.run(words, env={**os.environ, **environment}, capture_output=True)
    assert run.returncode == 2
    assert b"Traceback" not in run.stderr
    assert b"no configuration file" in run.stderr.lower()


@pytest.mark.parametrize("columns", ["1", "0", "-5", "many", "", "9" * 5000])
def test_help_comes_to_an_end_in_any_width(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stop:
        main(["sample", "--help"])
    assert stop.value.code == 0
    assert "--n-cells" in capsys.readouterr().out
    assert os.environ["COLUMNS"] == columns


@pytest.mark.parametrize("length", [3, 100, 300, 5000])
def test_a_long_value_that_is_no_number_is_refused(capsys, length):
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "cells.h5ad", "--output", "judged", "--max-cells", "x" * length])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "--max-cells" in said
    assert "must be a whole number" in said
    assert len(said) < 2000


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["sample", "model", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["sample", "model", "--output=a.h5ad", "--output", "b.h5ad"], "--output is given twice"),
        (["train", "--data.path", "a", "--data.path", "b"], "--data.path is given twice"),
        (["evaluate", "a", "b", "--max_cells", "3", "--max-cells", "4"], "--max-cells is given twice"),
    ],
)
def test_a_single_value_is_given_once(capsys, words, fragment):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert fragment in capsys.readouterr().err


def test_a_flag_and_its_opposite_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data.path", "x.h5ad", "--data.backed", "--data.no-backed", "--output", str(tmp_path / "new")])
    assert "--data.backed and its opposite are both given" in capsys.readouterr().err

"""What an import must not load, told by ``sys.modules`` of a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "anndata", "scanpy", "accelerate", "sklearn", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """Names of all modules that a fresh process has after running some code."""
    script = f"import contextlib, io, json, sys\nwith contextlib.redirect_stdout(io.StringIO()):\n    {code}\n"
    done = subprocess.run(
        [sys.executable, "-c", script + "print(json.dumps(sorted(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_the_command_line_answers_without_loading_anything_heavy(word):
    code = f"import scldm.cli\n    with contextlib.suppress(SystemExit): scldm.cli.main(['{word}'])"
    assert not loaded_by(code).intersection(HEAVY)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import scldm", HEAVY),
        ("import scldm.config", HEAVY),
        ("import scldm.evaluation, scldm.data, scldm.generation, scldm.tasks, scldm.storage", HEAVY),
        ("import scldm.nn.attention", ("scldm.model", "scldm.evaluation", "scldm.data", "anndata", "scanpy")),
        ("import scldm.prior.dit", ("scldm.model", "scldm.evaluation", "scldm.vae", "anndata", "scanpy")),
        ("import scldm.vae.model", ("scldm.model", "scldm.evaluation", "scldm.prior", "anndata", "scanpy")),
        ("import scldm.trained", ("scldm.model", "scldm.evaluation", "scldm.generation", "accelerate")),
        ("import scldm.model", ("scldm.evaluation", "matplotlib", "sklearn")),
        ("import scldm.evaluation; scldm.evaluation.evaluate", ("torch", "scldm.model", "scldm.vae", "matplotlib")),
    ],
)  # fmt: skip
def test_an_import_loads_no_room_that_it_does_not_need(code, absent):
    assert not loaded_by(code).intersection(absent)


def test_public_names_are_there_when_they_are_asked_for():
    import scldm

    assert set(scldm.__all__) <= set(dir(scldm))
    for name in scldm.__all__:
        assert getattr(scldm, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = scldm.nothing

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from scldm.cli import main
from scldm.errors import UserError
from scldm.locks import output_lock

HOLDING = """
import sys, time
from scldm.locks import output_lock
with output_lock(sys.argv[1], "train"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def another_process(path: Path):
    """Another process that holds the lock of a path."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_second_is_refused_and_told_of_the_first(tmp_path):
    with another_process(tmp_path / "model") as first:
        said = rf"another scldm train \(process {first.pid} on .*, since \d"
        with pytest.raises(UserError, match=said) as refusal, output_lock(tmp_path / "model", "sample"):
            raise AssertionError
        assert str(tmp_path / "model") in str(refusal.value)
        with output_lock(tmp_path / "another", "sample"):
            pass


def test_a_killed_process_holds_nothing(tmp_path):
    with another_process(tmp_path / "model") as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert [p.name for p in tmp_path.iterdir()] == [".model.scldm-lock"]
        with output_lock(tmp_path / "model", "sample"):
            holder = json.loads((tmp_path / ".model.scldm-lock").read_text())
            assert (holder["pid"], holder["doing"]) == (os.getpid(), "sample")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind(tmp_path):
    with pytest.raises(FileNotFoundError), output_lock(tmp_path / "deep" / "er" / "model", "train"):
        (tmp_path / "deep" / "er" / "nothing").read_text()
    assert list(tmp_path.iterdir()) == []
    with output_lock(tmp_path / "deep" / "model", "train"):
        (tmp_path / "deep" / "model").write_text("made")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["model"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 3}', b"\xff\xfe"])
def test_a_holder_that_is_not_known_is_not_named(tmp_path, content):
    with another_process(tmp_path / "model"):
        (tmp_path / ".model.scldm-lock").write_bytes(content)
        with (
            pytest.raises(UserError, match="being written by another scldm; wait"),
            output_lock(tmp_path / "model", "x"),
        ):
            pass


def test_where_nothing_can_be_written_the_writer_says_so(tmp_path):
    (tmp_path / "file").write_text("mine")
    with output_lock(tmp_path / "file" / "model", "train"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "MODEL", "--n-cells", "2", "--output", "OUT.h5ad"),
        ("encode", "MODEL", "CELLS", "--output", "OUT.h5ad"),
        ("evaluate", "CELLS", "CELLS", "--output", "OUT"),
        ("benchmark", "CELLS", "--output", "OUT"),
        ("demo", "--output", "OUT"),
        ("train", "--data.path", "CELLS", "--output", "OUT", "--device", "cpu"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_refuses_to_write_where_another_does(words, model_dir, tmp_path, capsys):
    tiny.tiny_adata().write_h5ad(tmp_path / "cells.h5ad")
    places = {"MODEL": model_dir, "CELLS": tmp_path / "cells.h5ad", "OUT": tmp_path / "out"}
    places["OUT.h5ad"] = tmp_path / "out.h5ad"
    before = sorted(p.name for p in tmp_path.iterdir())
    with another_process(places[words[words.index("--output") + 1]]) as first:
        started = time.monotonic()
        with pytest.raises(SystemExit) as stop:
            main([str(places.get(word, word)) for word in words])
        assert stop.value.code == 2
        assert time.monotonic() - started < 30
    assert f"process {first.pid}" in capsys.readouterr().err
    assert [name for name in sorted(p.name for p in tmp_path.iterdir()) if not name.endswith("-lock")] == before

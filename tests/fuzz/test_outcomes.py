"""The judge of the fuzz runs sees what it has to see."""

from __future__ import annotations

import os
import signal
import time

import outcomes
import pytest


def test_success_and_refusal_are_accepted(tmp_path):
    outcomes.check(outcomes.run_command(["--version"]), set())
    refused = outcomes.run_command(["trian"])
    assert refused.status == 2
    outcomes.check(refused, set())


@pytest.mark.parametrize(
    ("fault", "fragment"),
    [
        (lambda: 1 / 0, "status 70"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "status -11"),
        (lambda: time.sleep(30), "no end"),
        (lambda: bytearray(2**36), "status 70"),
    ],
    ids=["traceback", "crash", "hang", "memory"],
)
def test_faults_are_seen(fault, fragment):
    outcome = outcomes.run_command(["--version"], seconds=0.5, before=fault)
    with pytest.raises(AssertionError, match=fragment):
        outcomes.check(outcome, set())


def test_leftovers_are_seen_unless_a_success_may_leave_them(tmp_path):
    before = outcomes.listing(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".hidden").write_text("")
    left = outcomes.listing(tmp_path) - before
    assert left == {"deep", os.path.join("deep", ".hidden")}
    success, refusal = outcomes.run_command(["--version"]), outcomes.run_command(["trian"])
    with pytest.raises(AssertionError, match="left behind"):
        outcomes.check(success, left)
    outcomes.check(success, left, allowed=lambda name: name.startswith("deep"))
    with pytest.raises(AssertionError, match="left behind"):
        outcomes.check(refusal, left, allowed=lambda name: name.startswith("deep"))

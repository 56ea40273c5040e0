"""What a command may end in, whatever it is given: success, or exit status 2 with one sentence, soon, and nothing left.

Commands run in forks of the test process, which has imported everything: a crash, a hang and a hunger for memory are
outcomes like any other there, and cost milliseconds.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from scldm.cli import main

__all__ = ["N_MUTANTS", "Outcome", "check", "listing", "run_command"]

#: Mutants of each kind; the same ones in every run.
N_MUTANTS = int(os.environ.get("SCLDM_FUZZ_MUTANTS", "1000"))
#: Above what the process has when it is forked.
MOST_MEMORY = 4 * 2**30


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit status (minus the signal of a crash), what it printed, whether it was too slow."""

    status: int
    out: str
    err: str
    timed_out: bool


def listing(directory: Path) -> set[str]:
    """Name everything below a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def run_command(words: Sequence[object], *, seconds: float = 60.0, before: Callable[[], None] | None = None) -> Outcome:
    """Run ``scldm`` in a fork.

    Parameters
    ----------
    words
        Behind the name of the program.
    seconds
        After which it is killed.
    before
        Runs in the fork first.
    """
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            _run_and_exit([str(word) for word in words], out.fileno(), err.fileno(), before)
        deadline, timed_out = time.monotonic() + seconds, False
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                timed_out = True
                break
            time.sleep(0.002)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Outcome(os.waitstatus_to_exitcode(status), *texts, timed_out)


def _run_and_exit(words: list[str], out: int, err: int, before: Callable[[], None] | None) -> None:
    status = 70
    faulthandler.disable()  # or pytest's would print the stack of a crash that is wanted
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - for good
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - for good
        torch.set_num_threads(1)
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
        limit = pages * resource.getpagesize() + MOST_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if before is not None:
            before()
        main(words)
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def check(outcome: Outcome, left: set[str], *, allowed: Callable[[str], bool] = lambda name: False) -> None:
    """Assert that an outcome is one of the two that there may be.

    Parameters
    ----------
    outcome
        Of a command.
    left
        What is there afterwards and was not before.
    allowed
        Tells what a success may leave.
    """
    assert not outcome.timed_out, f"no end; {outcome.err[-500:]}"
    assert outcome.status in (0, 2), f"status {outcome.status}; {outcome.err[-2000:]}"
    assert "Traceback" not in outcome.err, outcome.err[-2000:]
    assert len(outcome.err) < 20_000, f"{len(outcome.err)} characters were printed"
    errors = [line for line in outcome.err.splitlines() if line.startswith("scldm: error: ")]
    assert len(errors) == (outcome.status == 2), outcome.err[-2000:]
    assert not any(ord(c) < 32 and c not in "\n\r\t" for c in outcome.err), "a control character reached the terminal"
    wrong = {name for name in left if not (outcome.status == 0 and allowed(name))}
    assert not wrong, f"left behind: {sorted(wrong)[:5]}"

"""SIGINT and SIGTERM: a step is finished and a checkpoint written before the process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

from scldm.training.distributed import sum_over_processes

__all__ = [
    "StoppedError",
    "asked_to_stop",
    "deferred_stops",
    "leave_stops_to_the_trainer",
    "stop_is_asked_for",
    "stops_with_a_word",
]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Steps between two looks, on an accelerator and with several processes, at whether one of them was told to stop: a
#: look waits for the device.
STEPS_BETWEEN_LOOKS = 16


class StoppedError(KeyboardInterrupt):
    """The process was told to stop by a signal.

    Attributes
    ----------
    signal_number
        Which.
    has_checkpoint
        Whether all that was trained is in a checkpoint.
    """

    def __init__(self, signal_number: int, *, has_checkpoint: bool) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number, self.has_checkpoint = signal_number, has_checkpoint


class _Asked:
    """The signal that asked this process to stop; one for the process, as signals are."""

    signal_number: int | None = None


@contextlib.contextmanager
def deferred_stops() -> Iterator[None]:
    """Note a SIGINT or SIGTERM instead of ending; a second SIGINT ends at once.

    One that came too late to be asked for is raised as :class:`StoppedError` at the end of the block. Handlers that the
    caller has set for SIGTERM are left alone, and all are as they were when the block ends. In
    another thread than the main one, signals cannot be handled, and nothing is done.
    """
    _Asked.signal_number = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    for stop in SIGNALS:
        handler = signal.getsignal(stop)
        if handler in (signal.SIG_DFL, signal.default_int_handler, _stop_now):
            before[stop] = signal.signal(stop, _note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if _Asked.signal_number is not None:
        # It came after the last look: what comes next would not know of it.
        raise StoppedError(_Asked.signal_number, has_checkpoint=False)


@contextlib.contextmanager
def stops_with_a_word() -> Iterator[None]:
    """Raise :class:`StoppedError` for a SIGTERM, too, so that the process can say how to continue."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _stop_now)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def leave_stops_to_the_trainer(worker: int) -> None:
    """Make a data worker deaf to SIGINT and SIGTERM, which a terminal, a container or Slurm send to every process.

    The trainer needs its batches for the step that it finishes, and ends the workers afterwards. One that has lost its
    trainer ends by itself.
    """
    trainer = os.getppid()

    def end_if_left_alone(number: int, frame: FrameType | None) -> None:
        if os.getppid() != trainer:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_if_left_alone)


def stop_is_asked_for(step: int, accelerator: Accelerator) -> bool:
    """Tell whether this process or one that it trains with was asked to stop; all of them agree on the step."""
    if accelerator.num_processes == 1:
        return _Asked.signal_number is not None
    if accelerator.device.type != "cpu" and step % STEPS_BETWEEN_LOOKS:
        return False
    own = torch.tensor([float(_Asked.signal_number or 0)], device=accelerator.device)
    asked = int(sum_over_processes(own, accelerator).item())
    if asked and _Asked.signal_number is None:
        _Asked.signal_number = signal.SIGTERM
    return asked > 0


def asked_to_stop() -> StoppedError:
    """Return what to raise after the checkpoint."""
    return StoppedError(_Asked.signal_number or signal.SIGTERM, has_checkpoint=True)


def _note(number: int, frame: FrameType | None) -> None:
    # torchrun passes a SIGINT, which the terminal sends to all, on as a SIGTERM: only a second SIGINT is impatience.
    if _Asked.signal_number == number == signal.SIGINT:
        raise StoppedError(number, has_checkpoint=False)
    _Asked.signal_number = _Asked.signal_number or number


def _stop_now(number: int, frame: FrameType | None) -> None:
    raise StoppedError(number, has_checkpoint=False)

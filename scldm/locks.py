"""One process at a time writes to a place: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from scldm.errors import UserError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["output_lock"]

#: Longest part of a name that is repeated in the name of its lock: file systems allow 255 bytes in all.
LONGEST_NAME = 100


@contextlib.contextmanager
def output_lock(path: Path | str, doing: str) -> Iterator[None]:
    """Keep other processes from writing to ``path`` until the block ends.

    The lock is a hidden file beside ``path``, held by the operating system for this process: a process that was killed
    holds none, and what it leaves of the file is in nobody's way. Where the file system has no locks, nothing is held.

    Parameters
    ----------
    path
        What is written; it need not exist, its directory is made if it is missing.
    doing
        What this process does, such as ``"train"``.

    Raises
    ------
    UserError
        If another process is writing there; the sentence names it.
    """
    path = Path(path).absolute()
    if fcntl is None:
        yield
        return
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError):
        yield  # nothing can be written there, which whoever writes says better
        return
    place = path.parent / _lock_name(path.name)
    descriptor = _locked(place, path)
    if descriptor is None:
        yield
        return
    try:
        holder = {"doing": doing, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
        # A full disk is no reason not to go on: the next one is then told of a process without a name.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        # Removed while it is locked: whoever waits for it finds out that it is another file.
        with contextlib.suppress(OSError):
            place.unlink()
        os.close(descriptor)
        # What was refused leaves no directories behind; those with something in them stay.
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()


def _locked(place: Path, path: Path) -> int | None:
    while True:
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:  # no permission, a read-only or a full disk: whoever writes says it better
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise UserError(
                f"'{path}' is being written by another scldm{holder}; wait for it to end, or name another output."
            ) from None
        except OSError:  # some network file systems have no locks
            return descriptor
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # another process removed it in between


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f" {holder['doing']} (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _lock_name(name: str) -> str:
    if len(name.encode(errors="surrogateescape")) > LONGEST_NAME:
        name = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return f".{name}.scldm-lock"

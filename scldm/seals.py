"""Sealed files: a JSON that knows its own checksum and those of the files that belong to it.

What is on disk may be cut off, mixed up or flipped in a bit; a seal tells, before anything is computed with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scldm.errors import UserError
from scldm.files import write_text

__all__ = ["DamagedFileError", "checksum", "read_sealed", "write_sealed"]

BYTES_AT_A_TIME = 2**22


class DamagedFileError(UserError):
    """A file is not what was written."""


def checksum(path: Path) -> str:
    """Compute the BLAKE2b checksum of a file, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(BYTES_AT_A_TIME):
            digest.update(block)
    return digest.hexdigest()


def write_sealed(path: Path, content: Any, files: Iterable[Path] = ()) -> None:
    """Write JSON with checksums; write it last, for it says that its files are complete.

    Parameters
    ----------
    path
        The JSON; it appears whole or not at all.
    content
        What JSON can hold.
    files
        In the directory of ``path``; already written.
    """
    body = {"content": content, "files": {file.name: checksum(file) for file in files}}
    write_text(path, json.dumps({**body, "checksum": _digest(body)}))


def read_sealed(path: Path) -> Any:
    """Read the content of :func:`write_sealed`.

    Raises
    ------
    DamagedFileError
        If the JSON or one of its files is not what was written.
    """
    if not path.is_file():  # a pipe would never end
        raise DamagedFileError(f"'{path}' is damaged or missing")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        own = body.pop("checksum")
        names = dict(body["files"])
        content = body["content"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedFileError(f"'{path}' is damaged") from None
    if own != _digest(body):
        raise DamagedFileError(f"'{path}' is damaged, or was changed by hand: its checksum is another")
    for name, expected in names.items():
        file = path.parent / name
        if Path(name).name != name or not file.is_file() or checksum(file) != expected:
            raise DamagedFileError(f"'{file}' is damaged, missing, or was changed by hand: its checksum is another")
    return content


def _digest(body: Any) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()

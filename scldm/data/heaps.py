"""The heaps in which an HDF5 file keeps its texts: the library never comes back from one that is damaged."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from scldm.errors import UserError

__all__ = ["check_heaps"]

#: Larger files are not searched: it would take longer than they take to open.
LARGEST_FILE = 2**32
_SIGNATURE, _HEADER, _OBJECT = b"GCOL\x01\x00\x00\x00", 16, 16


def check_heaps(path: Path) -> None:
    """Raise ``UserError`` if the objects of a global heap do not fill it.

    The layout is that of "Disk Format: Level 1E - Global Heap" in the HDF5 file format specification. The library
    walks from object to object by their sizes; where one is zero, or so large that it overflows, it walks for ever.
    """
    size = os.path.getsize(path)
    if not _HEADER < size <= LARGEST_FILE:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(_SIGNATURE)
        while place >= 0:
            if place + _HEADER <= size and not _is_filled(content, place, size):
                raise UserError(f"'{path}' is damaged: a heap of texts in it is")
            place = content.find(_SIGNATURE, place + 1)


def _is_filled(content: mmap.mmap, place: int, size: int) -> bool:
    (length,) = struct.unpack_from("<Q", content, place + 8)
    end = place + length
    if end > size:
        return True  # which the library notices
    place += _HEADER
    while place + _OBJECT <= end:
        (number,) = struct.unpack_from("<H", content, place)
        (own,) = struct.unpack_from("<Q", content, place + 8)
        # Object 0 is the free space, which counts itself in; others are padded to eight bytes.
        step = own if number == 0 else _OBJECT + (own + 7) // 8 * 8
        if step < _OBJECT or place + step > end:
            return False
        place += step
    return True

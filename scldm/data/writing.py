"""Writing HDF5 so that a full disk is an error like any other: HDF5 itself ends the process by a segmentation fault."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import h5py
from anndata.io import write_elem

__all__ = ["CheckedFile", "open_for_writing", "write_h5ad"]


class _ForgivingFile(io.RawIOBase):
    """A file for HDF5 to write to, which remembers the first error and pretends that all went well.

    HDF5 does not survive an error while it flushes its caches: it is told of none, what it writes afterwards is
    dropped, and whoever opened it asks for the error.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - closed by close()
        self._path, self._position, self._size = path, 0, 0
        self.error: OSError | None = None

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                done = 0
                while done < len(view):
                    done += os.pwrite(self._file.fileno(), view[done:], self._position + done)
            except OSError as error:
                self.error = OSError(error.errno, error.strerror, str(self._path))
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        view = memoryview(buffer).cast("B")
        found = os.pread(self._file.fileno(), len(view), self._position)
        # What was dropped reads as zeros.
        view[:] = found + bytes(len(view) - len(found))
        self._position += len(view)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        self._size = size
        if self.error is None:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = OSError(error.errno, error.strerror, str(self._path))
        return size

    def flush(self) -> None:
        pass

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.error is not None:
            raise self.error


class CheckedFile(h5py.File):
    """An HDF5 file that is written through :class:`_ForgivingFile`."""

    _target: _ForgivingFile

    def check(self) -> None:
        """Raise ``OSError`` if something could not be written so far; ask now and then, to end early."""
        self._target.check()


@contextlib.contextmanager
def open_for_writing(path: Path | str) -> Iterator[CheckedFile]:
    """Open a new HDF5 file for writing.

    Raises
    ------
    OSError
        At the end of the block, or from ``file.check()``, if the disk is full or the file could not be written.
    """
    target = _ForgivingFile(Path(path))
    try:
        with CheckedFile(target, "w") as file:
            file._target = target
            yield file
        target.check()
    finally:
        target.close()


def write_h5ad(adata: ad.AnnData, path: Path | str) -> None:
    """Write an AnnData as ``.h5ad``; raises ``OSError`` if the disk has no room for it."""
    adata.strings_to_categoricals()
    with open_for_writing(path) as file:
        write_elem(file, "/", adata)

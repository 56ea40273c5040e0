"""Files and directories that appear whole or not at all, and the one answer to "may I write there?"."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path

from scldm.errors import UserError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks; leftovers of dead processes stay there
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "atomic_directory",
    "atomic_file",
    "check_directory_can_be_made",
    "check_file_can_be_made",
    "check_is_another_file",
    "holds_only",
    "remove_directory",
    "remove_leftovers",
    "write_text",
]

#: Longest part of a name that is repeated in the name of the place beside it: file systems allow 255 bytes in all.
LONGEST_NAME = 100
#: Longest name of an output: there must be room for ``.training`` behind it.
LONGEST_OUTPUT_NAME = 255 - len(".training")


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Give a place to write a file, which replaces ``path`` when the block ends without an error.

    The place is in a hidden directory beside ``path``. The file is flushed to disk before it is renamed, and its name
    after. What processes that were killed left beside ``path`` is removed. A symbolic link is followed: what it leads
    to is replaced, and the link stays.

    Parameters
    ----------
    path
        The file that appears; its directory is made if it is missing.
    """
    path = _followed(Path(path))
    with _place_beside(path) as place:
        partial = place / path.name
        yield partial
        _set_mode(partial)
        _flush(partial)
        os.replace(partial, path)
        _flush(path.absolute().parent)


@contextlib.contextmanager
def atomic_directory(
    path: Path | str, overwrite: bool = False, is_ours: Callable[[Path], bool] | None = None
) -> Iterator[Path]:
    """Give an empty directory, which becomes ``path`` when the block ends without an error.

    Everything in it is flushed to disk before it is renamed. A process that is killed leaves the old directory or the
    new one; what it left beside ``path`` is removed by the next one that writes there.

    Parameters
    ----------
    path
        The directory that appears.
    overwrite
        Replace an existing directory.
    is_ours
        Tells whether a directory that is there at the end may be replaced, as in :func:`check_directory_can_be_made`:
        it may have appeared, or been added to, since that was asked. None replaces any.

    Raises
    ------
    FileExistsError
        If ``path`` exists and is not to be replaced.
    UserError
        If it exists and is not ours; the new directory is then kept beside it, and the sentence says where.
    """
    path = _followed(Path(path))
    with _place_beside(path) as place:
        partial = place / "new"
        partial.mkdir()
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                _set_mode(Path(folder) / name)
                _flush(Path(folder) / name)
            _flush(Path(folder))
        if path.exists() and not overwrite:
            raise FileExistsError(str(path))
        if is_ours is not None and not _may_be_replaced(path, is_ours):
            kept = _free_name(path)
            os.replace(partial, kept)
            raise UserError(
                f"'{path}' holds other things by now, which are not overwritten; what was made is in '{kept}'."
            )
        _replace_directory(path, partial, place / "old")
        _flush(path.absolute().parent)


def remove_directory(path: Path | str) -> None:
    """Remove a directory, all at once for everyone who looks: a kill leaves nothing half removed under its name."""
    path = Path(path).absolute()
    with _place_beside(path) as place, contextlib.suppress(FileNotFoundError):
        os.replace(path, place / "gone")


def remove_leftovers(path: Path | str) -> None:
    """Remove what processes that were killed left beside ``path``."""
    _remove_leftovers(_followed(Path(path)))


def _followed(path: Path) -> Path:
    """Return what a symbolic link leads to, whether it is there or not; any other path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _may_be_replaced(path: Path, is_ours: Callable[[Path], bool]) -> bool:
    return not path.exists() or (path.is_dir() and (not any(path.iterdir()) or is_ours(path)))


def _free_name(path: Path) -> Path:
    number = 1
    while (candidate := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    return candidate


def _set_mode(path: Path) -> None:
    """Give a file the mode that the user's own files get: some libraries write theirs for the owner alone."""
    if not path.is_symlink():
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(path, 0o666 & ~umask)


def _replace_directory(path: Path, new: Path, old: Path) -> None:
    """Rename ``new`` to ``path``, and what was there to ``old``; whatever goes wrong, one of the two is at ``path``."""
    while True:
        try:
            if path.exists():
                with contextlib.suppress(FileNotFoundError):  # by now
                    os.replace(path, old)
            # A kill at this point leaves the old one in the place: see _remove_leftovers.
            os.replace(new, path)
            return
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                # Another process was quicker: its directory is the old one now.
                shutil.rmtree(old, ignore_errors=True)
                continue
            _put_back(path, old)
            raise


def _put_back(path: Path, old: Path) -> None:
    """Give a directory its name again, unless there is another one by now."""
    if old.exists() and not path.exists():
        with contextlib.suppress(OSError):
            os.replace(old, path)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, whole or not at all, as UTF-8."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_file_can_be_made(path: Path, overwrite: bool) -> None:
    """Ask, before work that takes long, whether an ``.h5ad`` can be written.

    Parameters
    ----------
    path
        The file.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    UserError
        If something is in the way, or the place cannot be written.
    """
    _check_name(path)
    path = _followed(path)
    if path.suffix != ".h5ad":
        raise UserError(f"'{path}' must end in .h5ad.")
    if path.is_dir():
        raise UserError(f"'{path}' is a directory; name a file.")
    if path.exists() and not overwrite:
        raise UserError(f"'{path}' exists already; pass --overwrite (in Python: overwrite=True) to replace it.")
    _check_parent(path, "written")


def check_is_another_file(path: Path, data: Path | None) -> None:
    """Raise ``UserError`` if the destination is the file that is read: it would lose its counts."""
    if data is not None and path.exists() and data.exists() and path.samefile(data):
        raise UserError(f"'{path}' is the file that is read; write to another.")


def check_directory_can_be_made(path: Path, overwrite: bool, *, what: str, is_ours: Callable[[Path], bool]) -> None:
    """Ask, before work that takes long, whether a directory can be made.

    Parameters
    ----------
    path
        The directory.
    overwrite
        Whether one that was made by the same command may be replaced.
    what
        What it will be, such as "an evaluation".
    is_ours
        Tells whether an existing directory is one and nothing else; any other that is not empty is never replaced.

    Raises
    ------
    UserError
        If something is in the way, or the place cannot be written.
    """
    _check_name(path)
    path = _followed(path)
    _remove_leftovers(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"'{path}' is a file; name a directory for {what}.")
    if path.exists():
        if not _may_be_replaced(path, is_ours):
            raise UserError(
                f"'{path}' exists and holds other things than {what}; it will not be overwritten: name another "
                "directory."
            )
        if not overwrite:
            raise UserError(f"'{path}' exists already; pass --overwrite (in Python: overwrite=True) to replace it.")
    _check_parent(path, "made")


def holds_only(
    files: Set[str], directories: Mapping[str, Callable[[Path], bool]] | None = None
) -> Callable[[Path], bool]:
    """Return a test whether a directory holds nothing but what is named; for :func:`check_directory_can_be_made`.

    Parameters
    ----------
    files
        Names of regular files; a symbolic link is none.
    directories
        Names of directories, each with a test of its own.
    """
    tests = directories or {}

    def test(directory: Path) -> bool:
        return all(
            not path.is_symlink()
            and (
                tests[path.name](path)
                if path.name in tests and path.is_dir()
                else path.is_file() and path.name in files
            )
            for path in directory.iterdir()
        )

    return test


def _check_name(path: Path) -> None:
    """Raise ``UserError`` for a name that no file can have, or none beside it."""
    try:
        length = len(os.fsencode(path.name))
    except UnicodeEncodeError:
        raise UserError(
            f"'{path}' is no name of a file: it holds characters that the file system cannot write."
        ) from None
    if "\0" in str(path):
        raise UserError(f"'{path}' is no name of a file: it holds a NUL character.")
    if not path.name:
        raise UserError(f"'{path}' names no file or directory of its own.")
    if length > LONGEST_OUTPUT_NAME:
        raise UserError(f"the name '{path.name}' has {length} bytes; it may have at most {LONGEST_OUTPUT_NAME}.")


def _check_parent(path: Path, verb: str) -> None:
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise UserError(f"'{path}' cannot be {verb}: '{parent}' is a file, not a directory.")
    if not os.access(parent, os.W_OK):
        raise UserError(f"'{path}' cannot be {verb}: no permission to write in '{parent}'.")


@contextlib.contextmanager
def _place_beside(path: Path) -> Iterator[Path]:
    """Make a hidden directory beside a path, hold a lock on it that ends with this process, and remove it again."""
    parent = path.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        place, lock = _locked_place(path.name, parent)
    except OSError as error:
        raise _named_after(error, path, parent) from None
    try:
        yield place
    except OSError as error:
        raise _named_after(error, path, place) from None
    finally:
        with contextlib.suppress(OSError):
            _remove_tree(place)
        if lock is not None:
            os.close(lock)


def _named_after(error: OSError, path: Path, place: Path) -> OSError:
    """Name the path that the user knows in an error about the hidden place."""
    if error.filename is not None and str(error.filename).startswith(str(place)):
        error.filename = str(path)
    return error


def _locked_place(name: str, parent: Path) -> tuple[Path, int | None]:
    """Make a directory and lock it; again, if another process took it for a leftover before it was locked."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=_prefix(name), dir=parent))
        if fcntl is None:
            return place, None
        try:
            lock = os.open(place, os.O_RDONLY)
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            return place, lock
        os.close(lock)


def _prefix(name: str) -> str:
    if len(name.encode()) > LONGEST_NAME:
        name = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f".{name}.scldm-partial-"


def _remove_leftovers(path: Path) -> None:
    """Remove what dead processes left beside a path; put a directory back that one had taken away and not replaced."""
    path = path.absolute()
    if fcntl is None or not path.parent.is_dir():
        return
    # The random part is as tempfile makes it.
    pattern = re.compile(re.escape(_prefix(path.name)) + r"[a-z0-9_]{8}")
    for place in path.parent.iterdir():
        if not pattern.fullmatch(place.name) or not place.is_dir():
            continue
        with contextlib.suppress(OSError):
            lock = os.open(place, os.O_RDONLY)
            try:
                # Fails while the process that made the place is alive.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _put_back(path, place / "old")
                _remove_tree(place)
            finally:
                os.close(lock)


def _remove_tree(directory: Path) -> None:
    """Remove a directory and what is in it; what a symbolic link leads to is left alone."""
    for entry in directory.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
    shutil.rmtree(directory)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    if path.is_dir() and os.name == "nt":  # directories cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot flush a directory; a file that cannot be flushed is an error.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scldm.errors import UserError
from scldm.files import (
    atomic_directory,
    atomic_file,
    check_directory_can_be_made,
    check_file_can_be_made,
    check_is_another_file,
    holds_only,
    remove_directory,
    write_text,
)


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def test_a_file_appears_when_it_is_complete_and_nothing_else_does(tmp_path):
    path = tmp_path / "deep" / "cells.txt"
    with atomic_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["cells.txt"]


def test_a_failure_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "cells.txt"
    write_text(path, "precious")
    with pytest.raises(FileNotFoundError, match=r"cells\.txt"), atomic_file(path) as partial:
        partial.write_bytes(partial.with_name("half").read_bytes())
    assert path.read_text() == "precious"
    assert names(tmp_path) == ["cells.txt"]


def test_a_directory_appears_whole(tmp_path):
    path = tmp_path / "model"
    with atomic_directory(path) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "a.txt").write_text("a")
        assert not path.exists()
    assert (path / "inner" / "a.txt").read_text() == "a"
    assert names(tmp_path) == ["model"]


def test_a_failure_leaves_no_directory(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "model") as partial:
        (partial / str(1 / len(list(partial.iterdir())))).write_text("a")
    assert names(tmp_path) == []


def test_a_directory_is_replaced_only_on_demand(tmp_path):
    path = tmp_path / "model"
    with atomic_directory(path) as partial:
        (partial / "old.txt").write_text("old")
    with pytest.raises(FileExistsError), atomic_directory(path) as partial:
        (partial / "new.txt").write_text("new")
    with pytest.raises(RuntimeError, match="half way"), atomic_directory(path, overwrite=True):
        raise RuntimeError("half way")
    assert names(path) == ["old.txt"]
    with atomic_directory(path, overwrite=True) as partial:
        (partial / "new.txt").write_text("new")
    assert names(path) == ["new.txt"]
    assert names(tmp_path) == ["model"]


def test_everything_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: done.append(f"flush {Path(f'/proc/self/fd/{fd}').readlink().name}"))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append("rename") or replace(a, b))
    write_text(tmp_path / "a.txt", "a")
    assert done == ["flush a.txt", "rename", f"flush {tmp_path.name}"]
    done.clear()
    with atomic_directory(tmp_path / "model") as partial:
        (partial / "b.txt").write_text("b")
    assert done == ["flush b.txt", "flush new", "rename", f"flush {tmp_path.name}"]
    assert fsync is not os.fsync


KILLED = """
import os, signal, sys
from pathlib import Path
from scldm import files
path, moment = Path(sys.argv[1]), sys.argv[2]
if moment == "between":
    # The second rename of a replacement never comes.
    replace, seen = os.replace, []
    def dying(a, b):
        seen.append(a)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(a, b)
    os.replace = dying
with files.atomic_directory(path, overwrite=True) as partial:
    (partial / "new.txt").write_text("new")
    if moment == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["writing", "between"])
def test_what_a_killed_process_left_is_removed_and_what_it_took_away_is_put_back(tmp_path, moment):
    path = tmp_path / "model"
    with atomic_directory(path) as partial:
        (partial / "old.txt").write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == (2 if moment == "writing" else 1)
    with pytest.raises(FileExistsError), atomic_directory(path):
        pass
    assert names(tmp_path) == ["model"]
    assert (path / "old.txt").read_text() == "old"


def test_a_directory_that_a_killed_process_took_away_is_found_by_whoever_asks(tmp_path):
    path = tmp_path / "model"
    with atomic_directory(path) as partial:
        (partial / "old.txt").write_text("old")
    subprocess.run([sys.executable, "-c", KILLED, str(path), "between"], check=False)
    with pytest.raises(UserError, match="exists already"):
        check_directory_can_be_made(path, overwrite=False, what="a model", is_ours=holds_only({"old.txt"}))
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_an_interruption_between_the_two_renames_loses_nothing(tmp_path, monkeypatch, error):
    path = tmp_path / "model"
    with atomic_directory(path) as partial:
        (partial / "old.txt").write_text("old")
    replace = os.replace

    def interrupted(source, target):
        if Path(source).name == "new":
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(type(error)), atomic_directory(path, overwrite=True) as partial:
        (partial / "new.txt").write_text("new")
    assert names(tmp_path) == ["model"]
    assert names(path) == ["old.txt"]


def test_of_two_that_replace_a_directory_at_once_one_wins_and_both_succeed(tmp_path, monkeypatch):
    path = tmp_path / "model"
    replace, seen = os.replace, []

    def beaten(source, target):
        if Path(source).name == "new" and not seen:
            seen.append(source)
            path.mkdir()
            (path / "theirs.txt").write_text("theirs")
        replace(source, target)

    monkeypatch.setattr(os, "replace", beaten)
    with atomic_directory(path, overwrite=True) as partial:
        (partial / "ours.txt").write_text("ours")
    assert names(path) == ["ours.txt"]
    assert names(tmp_path) == ["model"]


def test_errors_name_the_path_that_the_user_knows(tmp_path):
    with pytest.raises(OSError, match="No such file") as told, atomic_file(tmp_path / "cells.h5ad"):
        pass  # nothing was written
    assert told.value.filename == str(tmp_path / "cells.h5ad")


def test_the_place_of_a_living_process_and_other_names_are_left_alone(tmp_path):
    others = [tmp_path / ".model.scldm-partial-mine", tmp_path / ".model.2.scldm-partial-abcdefgh"]
    for other in others:
        other.mkdir()
    with atomic_directory(tmp_path / "model", overwrite=True) as mine:
        with atomic_directory(tmp_path / "model") as theirs:
            (theirs / "a.txt").write_text("theirs")
            assert mine.is_dir()
        assert mine.is_dir()
        (mine / "a.txt").write_text("mine")
    assert (tmp_path / "model" / "a.txt").read_text() == "mine"
    assert names(tmp_path) == [".model.2.scldm-partial-abcdefgh", ".model.scldm-partial-mine", "model"]


def test_names_as_long_as_a_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 250)
    write_text(path, "long")
    assert path.read_text() == "long"
    assert len(names(tmp_path)) == 1


def test_where_a_file_can_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "there.h5ad").write_text("")
    (tmp_path / "directory.h5ad").mkdir()
    for path, message in (
        (tmp_path / "cells.csv", "must end in .h5ad"),
        (tmp_path / "directory.h5ad", "is a directory"),
        (tmp_path / "there.h5ad", r"exists already; pass --overwrite \(in Python: overwrite=True\)"),
        (tmp_path / "file" / "cells.h5ad", "cannot be written: '.*file' is a file"),
    ):
        with pytest.raises(UserError, match=message):
            check_file_can_be_made(path, overwrite=False)
    check_file_can_be_made(tmp_path / "there.h5ad", overwrite=True)
    check_file_can_be_made(tmp_path / "new" / "cells.h5ad", overwrite=False)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="no permission to write"):
        check_file_can_be_made(tmp_path / "cells.h5ad", overwrite=False)


def test_the_file_that_is_read_is_not_written(tmp_path):
    (tmp_path / "a.h5ad").write_text("")
    (tmp_path / "b.h5ad").symlink_to(tmp_path / "a.h5ad")
    with pytest.raises(UserError, match="is the file that is read"):
        check_is_another_file(tmp_path / "b.h5ad", tmp_path / "a.h5ad")
    check_is_another_file(tmp_path / "c.h5ad", tmp_path / "a.h5ad")
    check_is_another_file(tmp_path / "a.h5ad", None)


def test_where_a_directory_can_be_made(tmp_path, monkeypatch):
    def check(name: str, overwrite: bool = False) -> None:
        check_directory_can_be_made(
            tmp_path / name, overwrite, what="a report", is_ours=holds_only({"report.html", "metrics.json"})
        )

    (tmp_path / "file").write_text("")
    for name, content in (("ours", "report.html"), ("foreign", "notes.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / content).write_text("")
    (tmp_path / "empty").mkdir()
    check("new/report")
    check("ours", overwrite=True)
    check("empty", overwrite=True)
    for name, overwrite, message in (
        ("file", True, "is a file; name a directory for a report"),
        ("file/report", True, "cannot be made"),
        ("foreign", True, "holds other things than a report"),
        ("ours", False, "exists already; pass --overwrite"),
        ("empty", False, "exists already; pass --overwrite"),
    ):
        with pytest.raises(UserError, match=message):
            check(name, overwrite)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="no permission to write"):
        check("new")


# ---- What is not ours ------------------------------------------------------------------------------------------------


def make(path: Path, content: str = "new", **options) -> None:
    with atomic_directory(path, overwrite=True, **options) as partial:
        (partial / "a.txt").write_text(content)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(tmp_path, there):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "model", tmp_path / "model"
    if there:
        make(target, "old")
    link.symlink_to(target)
    make(link)
    assert link.is_symlink()
    assert (target / "a.txt").read_text() == "new"
    file = tmp_path / "cells.txt"
    file.symlink_to(tmp_path / "elsewhere" / "cells.txt")
    write_text(file, "counts")
    assert file.is_symlink()
    assert (tmp_path / "elsewhere" / "cells.txt").read_text() == "counts"


def test_what_a_link_inside_leads_to_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "mine")
    remove_directory(tmp_path / "model")
    assert names(tmp_path) == ["mine"]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("entry", ["notes.txt", "inner/a.txt", "link"])
def test_a_directory_with_other_things_is_not_replaced_even_if_they_came_late(tmp_path, entry, late):
    path, is_ours = tmp_path / "model", holds_only({"a.txt"})
    make(path, "old")

    def add() -> None:
        other = path / entry
        other.parent.mkdir(exist_ok=True)
        if entry == "link":
            other.symlink_to(tmp_path)
        else:
            other.write_text("mine")

    if not late:
        add()
        with pytest.raises(UserError, match="holds other things"):
            check_directory_can_be_made(path, True, what="a model", is_ours=is_ours)
        return
    check_directory_can_be_made(path, True, what="a model", is_ours=is_ours)

    def write() -> None:
        with atomic_directory(path, overwrite=True, is_ours=is_ours) as partial:
            (partial / "a.txt").write_text("new")
            add()

    with pytest.raises(UserError, match=r"what was made is in '.*model-1'"):
        write()
    assert (path / "a.txt").read_text() == "old"
    assert os.path.lexists(path / entry)
    assert (tmp_path / "model-1" / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["model", "model-1"]


def test_directories_are_judged_by_what_is_in_them(tmp_path):
    is_ours = holds_only({"table.md"}, {"model": holds_only({"config.json"})})
    (tmp_path / "model").mkdir()
    (tmp_path / "table.md").write_text("")
    assert is_ours(tmp_path)
    (tmp_path / "model" / "config.json").write_text("")
    assert is_ours(tmp_path)
    (tmp_path / "model" / "notes.txt").write_text("mine")
    assert not is_ours(tmp_path)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_have_the_mode_of_the_users_own(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "weights") as partial:
            partial.write_bytes(b"")
            partial.chmod(0o600)
        with atomic_directory(tmp_path / "model") as partial:
            (partial / "weights").write_bytes(b"")
            (partial / "weights").chmod(0o600)
    finally:
        os.umask(before)
    for path in (tmp_path / "weights", tmp_path / "model" / "weights"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("x" * 250, "250 bytes"),
        ("é" * 130, "260 bytes"),
        ("a\0b", "NUL"),
        ("\ud800", "cannot write"),
        ("", "of its own"),
    ],
    ids=["long", "long in bytes", "NUL", "surrogate", "none"],
)
def test_names_that_no_output_can_have_are_refused_before_the_work(tmp_path, name, fragment):
    path = tmp_path / name if name else Path("/")
    with pytest.raises(UserError, match=fragment):
        check_directory_can_be_made(path, True, what="a model", is_ours=holds_only(set()))


def test_the_longest_name_has_room_for_what_is_beside_it(tmp_path):
    path = tmp_path / ("x" * 246)
    check_directory_can_be_made(path, False, what="a model", is_ours=holds_only(set()))
    make(path)
    make(path.with_name(path.name + ".training"))
    assert len(names(tmp_path)) == 2

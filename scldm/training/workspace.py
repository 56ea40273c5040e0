"""The working directory of a run: it belongs to one configuration and one data set, and only that run continues it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from scldm.errors import UserError
from scldm.files import atomic_directory, remove_leftovers
from scldm.seals import DamagedFileError, read_sealed, write_sealed

__all__ = ["continues", "mark_as_trained", "open_workspace", "trained_model"]

MARKER, TRAINED = "run.json", "trained.json"


def continues(directory: Path, identity: Mapping[str, Any], overwrite: bool = False) -> bool:
    """Tell whether ``directory`` holds an unfinished run with this identity.

    Parameters
    ----------
    directory
        Working directory; it need not exist.
    identity
        What the run is, as JSON: everything that changes what it ends in, and nothing else.
    overwrite
        Whether another unfinished run may be thrown away.

    Raises
    ------
    UserError
        If something else is in the way.
    """
    remove_leftovers(directory)
    marker = directory / MARKER
    if not marker.is_file():
        if directory.exists() and (directory.is_file() or any(directory.iterdir())):
            raise UserError(f"'{directory}' exists and is not an unfinished run of scldm; name another output.")
        return False
    try:
        differing = _differences(read_sealed(marker), json.loads(json.dumps(identity)))
    except DamagedFileError:
        if overwrite:
            return False
        raise UserError(
            f"'{marker}' is damaged, so nobody knows what run '{directory}' belongs to; name another output, or pass "
            "--overwrite (in Python: another directory) to throw it away and start anew."
        ) from None
    if differing and not overwrite:
        raise UserError(
            f"an unfinished run in '{directory}' has another {differing[0]}; repeat what it was started with to "
            "continue it, or name another output; --overwrite (in Python: another directory) throws it away and starts "
            "anew."
        )
    return not differing


def open_workspace(
    directory: Path, identity: Mapping[str, Any], accelerator: Accelerator, overwrite: bool = False
) -> bool:
    """Make the working directory unless an unfinished run is to be continued; tell whether there is one.

    Parameters
    ----------
    directory, identity, overwrite
        As in :func:`continues`.
    accelerator
        All processes call this; the main one writes.
    """
    continuing = continues(directory, identity, overwrite)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not continuing:
        with atomic_directory(directory, overwrite=True) as partial:
            write_sealed(partial / MARKER, identity)
    accelerator.wait_for_everyone()
    return continuing


def mark_as_trained(directory: Path, fingerprint: str) -> None:
    """Note, before the model is written, which one comes of the run: it may be killed before it is tidied up."""
    write_sealed(directory / TRAINED, fingerprint)


def trained_model(directory: Path) -> str | None:
    """Return the fingerprint of the model that the run in a directory ended in; None if it has not ended."""
    try:
        return str(read_sealed(directory / TRAINED)) if (directory / TRAINED).is_file() else None
    except DamagedFileError:
        return None


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """List the paths at which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(k for k in old if k not in new)]
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [path.removeprefix("config.").removeprefix("cells.")]

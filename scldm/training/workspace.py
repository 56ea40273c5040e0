"""The working directory of a run: it belongs to one configuration and one data set, and only that run continues it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from scldm.errors import UserError
from scldm.files import atomic_directory

__all__ = ["continues", "open_workspace"]

MARKER = "run.json"


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
    marker = directory / MARKER
    if not marker.is_file():
        if directory.exists() and (directory.is_file() or any(directory.iterdir())):
            raise UserError(f"'{directory}' exists and is not an unfinished run of scldm; name another output.")
        return False
    try:
        differing = _differences(json.loads(marker.read_text(encoding="utf-8")), identity)
    except ValueError:
        raise UserError(f"'{marker}' is damaged; delete '{directory}' to start anew.") from None
    if differing and not overwrite:
        raise UserError(
            f"an unfinished run in '{directory}' has another {differing[0]}; repeat its configuration to continue it, "
            "or pass --overwrite to start anew."
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
            (partial / MARKER).write_text(json.dumps(identity), encoding="utf-8")
    accelerator.wait_for_everyone()
    return continuing


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """List the paths at which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(k for k in old if k not in new)]
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [path.removeprefix("config.")]

"""What may be in the way of a command's results."""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from scldm.errors import UserError

__all__ = ["check_result_directory"]


def check_result_directory(output: Path, files: Set[str], what: str, overwrite: bool) -> None:
    """Ask, before work that takes long, whether a directory can be made.

    Parameters
    ----------
    output
        The directory.
    files
        Names of what it will hold; a directory with anything else is never replaced.
    what
        What it will be, such as "an evaluation".
    overwrite
        Replace an earlier one.

    Raises
    ------
    UserError
        If something is in the way, or the place cannot be written.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"'{output}' is a file; name a directory for the results.")
    if output.exists():
        if not {p.name for p in output.iterdir()} <= files:
            raise UserError(f"'{output}' exists and holds other things than {what}; name another directory.")
        if not overwrite:
            raise UserError(f"'{output}' exists already; pass --overwrite to replace it, or another --output.")
    parent = next(p for p in output.absolute().parents if p.exists())
    if not parent.is_dir():
        raise UserError(f"'{output}' cannot be made: '{parent}' is a file, not a directory.")
    if not os.access(parent, os.W_OK):
        raise UserError(f"'{output}' cannot be made: no permission to write in '{parent}'.")

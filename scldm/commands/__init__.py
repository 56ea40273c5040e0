"""The commands: one file each, whose dataclass has the options as fields and does the work in ``run``.

The files import what is heavy when they run, so that ``scldm --help`` answers at once.
"""

from __future__ import annotations

import pkgutil
from typing import Any

__all__ = ["COMMANDS", "command"]

COMMANDS = {
    "demo": "Demo",
    "train": "Train",
    "sample": "Sample",
    "encode": "Encode",
    "evaluate": "Evaluate",
    "benchmark": "Benchmark",
    "info": "Info",
}
"""The name of every command, which is that of its file, and its class there."""


def command(name: str) -> type[Any]:
    """Return the class of a command."""
    found: type[Any] = pkgutil.resolve_name(f"scldm.commands.{name}:{COMMANDS[name]}")
    return found

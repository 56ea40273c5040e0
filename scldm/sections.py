"""What the sections of a configuration share."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from scldm.errors import require

__all__ = ["HARMLESS", "check_numbers"]

HARMLESS = {"changes_outcome": False}
"""Metadata of a field that changes how a training runs but not what it ends in: another value of it is no obstacle to
continuing a training that was stopped."""

#: Largest number of a kind that a field may hold, by its name; what is not named here may be up to LARGEST.
LARGEST_OF = {
    "n_layers": 1_000,
    "n_heads": 1_024,
    "n_cross_heads": 1_024,
    "n_latents": 16_384,
    "latent_channels": 16_384,
    "width": 65_536,
    "table_width": 65_536,
    "batch_size": 10_000_000,
    "gradient_accumulation": 1_000_000,
    "data_workers": 1_024,
    "few_step_evaluations": 1_000,
}
LARGEST = 10**15


def check_numbers(section: Any, name: str) -> None:
    """Raise ``UserError`` if a number of a section is not finite, or so large that it can only be a slip.

    Parameters
    ----------
    section
        Dataclass of settings.
    name
        What a sentence puts before the name of a field, such as ``"vae."``.
    """
    for one in dataclasses.fields(section):
        value, largest = getattr(section, one.name), LARGEST_OF.get(one.name, LARGEST)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                require(math.isfinite(number), f"{name}{one.name} is {number!r}; it must be finite.")
            elif isinstance(number, int) and not isinstance(number, bool):
                shown = str(number) if abs(number) < 10**30 else "a number of many digits"
                require(abs(number) <= largest, f"{name}{one.name} is {shown}; it may be at most {largest:,}.")

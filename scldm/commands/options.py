"""Options that several commands have: values that may be repeated, numbers, pairs, and the device."""

from __future__ import annotations

from collections.abc import Sequence

from scldm.errors import UserError

__all__ = ["choose_device", "flat", "number", "pairs"]


def flat(option: str, groups: Sequence[Sequence[str]]) -> list[str]:
    """Put the values of an option together that may be repeated and takes several values each time."""
    if not all(groups):
        raise UserError(f"{option} needs a value")
    return [value for group in groups for value in group]


def number(text: str, what: str) -> float:
    """Read a number; raises ``UserError`` for anything else."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{what} is '{text}'; it must be a number.") from None


def pairs(words: Sequence[str], what: str, form: str) -> dict[str, str]:
    """Split ``name=value`` words; raises ``UserError`` for one that is not of the form, and for a repeated name."""
    result: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and name and value):
            raise UserError(f"the {what} '{word}' is not of the form {form}.")
        if name in result:
            raise UserError(f"the {what} of '{name}' is given twice; it can have one value only.")
        result[name] = value
    return result


def choose_device(name: str) -> str:
    """Return the device to compute on: ``auto`` is a GPU if there is one; raises ``UserError`` for one that is not."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"the device '{name}' is not available on this machine; use --device cpu.")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name

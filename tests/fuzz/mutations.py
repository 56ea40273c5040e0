"""Ways to damage bytes, JSON and text, as functions of a random number generator."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

__all__ = ["mutated_bytes", "mutated_json", "nonsense"]

_ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 1e308, -1e308, 0.5, 1e-320, "", "0", "nan", "é",
    "\x1b[31m", "\x00", "../../etc/passwd", "A" * 10_000, "=1+1", "<script>", [], {}, [[]], [None], {"a": 1},
    [0] * 1000,
    float("inf"), float("-inf"), float("nan"),
]  # fmt: skip


def nonsense(rng: np.random.Generator) -> Any:
    """Return something that is hardly ever right."""
    return _ODD[int(rng.integers(len(_ODD)))]


def mutated_bytes(whole: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, overwrite, cut off, remove, repeat or insert some of the bytes."""
    content = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            return bytes(rng.bytes(8))
        place, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
        kind = rng.choice(["flip", "overwrite", "truncate", "remove", "repeat", "insert", "zero", "ones"])
        if kind == "flip":
            content[place] ^= 1 << int(rng.integers(8))
        elif kind == "overwrite":
            content[place : place + length] = rng.bytes(len(content[place : place + length]))
        elif kind == "truncate":
            del content[place:]
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length]
        elif kind == "insert":
            content[place:place] = rng.bytes(length)
        else:
            filled = len(content[place : place + length])
            content[place : place + length] = (b"\x00" if kind == "zero" else b"\xff") * filled
    return bytes(content)


def mutated_json(text: str, rng: np.random.Generator) -> str:
    """Replace, remove or add a value somewhere in a JSON, or mutate its bytes."""
    if rng.random() < 0.2:
        return mutated_bytes(text.encode(), rng).decode(errors="surrogateescape")
    content = json.loads(text)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else range(min(len(value), 40)):
                places.append((value, key))
                walk(value[key])

    walk(content)
    holder, key = places[int(rng.integers(len(places)))]
    kind = rng.choice(["replace", "remove", "add", "nudge"])
    if kind == "remove":
        del holder[key]
    elif kind == "add" and isinstance(holder, dict):
        holder[str(nonsense(rng))] = nonsense(rng)
    elif kind == "nudge" and isinstance(holder[key], int | float):
        holder[key] = holder[key] * int(rng.choice([-1, 0, 2, 1000, 10**12]))
    else:
        holder[key] = nonsense(rng)
    return json.dumps(content)

"""One metric on one line: the ceiling's interval, generators, baselines and the memoriser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scldm.evaluation.page.numbers import number
from scldm.evaluation.records import Record
from scldm.evaluation.systems import Kind, Systems

__all__ = ["HEIGHT", "MARGIN", "WIDTH", "Mark", "Strip", "strip_of"]

WIDTH, HEIGHT, MARGIN = 160, 26, 8

_ORDER: tuple[Kind, ...] = ("ceiling", "baseline", "memoriser", "generator")


@dataclass(frozen=True)
class Mark:
    """One system on the line, in pixels from the left: its value and the ends of its interval."""

    kind: Kind
    colour: str
    x: float
    left: float
    right: float


@dataclass(frozen=True)
class Strip:
    """The marks in the order in which they are drawn, the most important on top, and all values as text."""

    marks: tuple[Mark, ...]
    text: str


def strip_of(values: Mapping[str, Record], systems: Systems) -> Strip | None:
    """Place the values of all systems on one linear axis; None when there are none."""
    known = [(system, values[system.name]) for system in systems if system.name in values]
    known = [(system, record) for system, record in known if math.isfinite(record.value)]
    if not known:
        return None
    ranges = [(_or(record.low, record.value), record.value, _or(record.high, record.value)) for _, record in known]
    low, high = min(map(min, ranges)), max(map(max, ranges))

    def x(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (value - low) / (high - low) if high > low else WIDTH / 2

    marks = [
        Mark(system.kind, system.colour, x(value), x(left), x(right))
        for (system, _), (left, value, right) in zip(known, ranges, strict=True)
    ]
    drawn = [mark for kind in _ORDER for mark in (marks[::-1] if kind == "generator" else marks) if mark.kind == kind]
    text = ", ".join(f"{system.display_name} {number(record.value)}" for system, record in known)
    return Strip(tuple(drawn), text)


def _or(end: float | None, value: float) -> float:
    """Give the end of an interval, or the value where there is none."""
    return value if end is None else end

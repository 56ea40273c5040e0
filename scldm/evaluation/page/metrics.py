"""The table of metrics: how numbers are written, who has which rank, and all systems on one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scldm.evaluation.records import GROUPS, Record, Row
from scldm.evaluation.systems import System, Systems
from scldm.evaluation.verdict import Rank, in_own_space, rank

__all__ = ["NOTHING", "RANKS", "Mark", "count_ranks", "metric_sections", "number", "real_range", "strip_of"]

#: A mark and words for every rank.
RANKS: dict[Rank, tuple[str, str]] = {
    "ceiling": ("●", "at the ceiling"),
    "between": ("◐", "between the ceiling and the best baseline"),
    "behind": ("○", "behind a baseline"),
}
NOTHING = "–"  # noqa: RUF001 (a dash, not a hyphen)
# Of the line on which all systems are, in pixels.
WIDTH, MARGIN = 160, 8


@dataclass(frozen=True)
class Mark:
    """One system on the line: its value, and where this and the ends of its interval are, in pixels from the left."""

    system: System
    value: float
    x: float
    left: float
    right: float


def count_ranks(rows: Iterable[Row], generator: str, baselines: Sequence[str]) -> dict[Rank, int]:
    """Count in how many metrics a generator has which rank; distances in a model's own space do not count."""
    found = [rank(row, generator, baselines) for row in rows if not in_own_space(row)]
    return {one: found.count(one) for one in RANKS}


def metric_sections(rows: Iterable[Row]) -> dict[tuple[str, str | None], list[Row]]:
    """Divide the metrics by the heading of their group and by space, in the order of the rows."""
    sections: dict[tuple[str, str | None], list[Row]] = {}
    for row in rows:
        sections.setdefault((GROUPS[row.info.group], row.space), []).append(row)
    return sections


def strip_of(values: Mapping[str, Record], systems: Systems) -> list[Mark]:
    """Place the values of all systems that have a finite one on one linear axis.

    The ends of the ceiling's mark are those of what real cells would score, where that is known; of the others', and on
    a side that is open, those of the interval.
    """
    known = [(system, values[system.name]) for system in systems if system.name in values]
    known = [(system, record) for system, record in known if math.isfinite(record.value)]
    ranges = [(record.value, *_ends(record, system.kind == "ceiling")) for system, record in known]
    low, high = min(map(min, ranges), default=0.0), max(map(max, ranges), default=0.0)

    def x(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (value - low) / (high - low) if high > low else WIDTH / 2

    return [Mark(system, record.value, *map(x, places)) for (system, record), places in zip(known, ranges, strict=True)]


def _ends(record: Record, of_real: bool) -> tuple[float, float]:
    low, high = record.interval or (record.value, record.value)
    real_low, real_high = (record.real_range if of_real else None) or (None, None)
    return low if real_low is None else real_low, high if real_high is None else real_high


def real_range(record: Record) -> str:
    """Say what real cells would score in the place of a generator; nothing where it is not known."""
    low, high = record.real_range or (None, None)
    if low is None:
        return "" if high is None else f"real: to {number(high, record.value)}"
    least = number(low, record.value)
    return f"real: {least} up" if high is None else f"real: {least} … {number(high, record.value)}"


def number(value: float | None, like: float | None = None) -> str:
    """Write a number with three significant digits, or with as many decimals as `like`, whose interval it may end.

    None, and what is not finite, is a dash.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    scale = abs(value if like is None or not math.isfinite(like) else like)
    if scale == 0:
        return "0" if value == 0 else number(value)
    decimals = min(max(2 - math.floor(math.log10(scale) + 1e-9), 0), 5)
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "−")  # noqa: RUF001 (a minus sign, not a hyphen)

"""The table of metrics: one section per group and space, one column per system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scldm.evaluation.page.numbers import NOTHING, number
from scldm.evaluation.page.strip import Strip, strip_of
from scldm.evaluation.records import GROUPS, Record, Row
from scldm.evaluation.systems import System, Systems
from scldm.evaluation.verdict import Rank, in_own_space, rank

__all__ = ["RANKS", "MetricCell", "MetricRow", "MetricSection", "column_name", "count", "metric_sections"]

#: A mark and words for every rank.
RANKS: dict[Rank, tuple[str, str]] = {
    "ceiling": ("●", "at the ceiling"),
    "between": ("◐", "between the ceiling and the best baseline"),
    "behind": ("○", "behind a baseline"),
}
_OWN_SPACE = "the model's own space, so these metrics count neither for nor against anyone at the top of the page"
_BEST = {
    "lower": "lower is better",
    "higher": "higher is better",
    "closest to ceiling": "closest to the ceiling is best",
}


@dataclass(frozen=True)
class MetricCell:
    """One value; only those of generators have a rank."""

    text: str
    interval: str | None = None
    rank: Rank | None = None


@dataclass(frozen=True)
class MetricRow:
    """One metric; the description is None where a row above has given it."""

    name: str
    best: str
    description: str | None
    tooltip: str
    strip: Strip | None
    cells: tuple[MetricCell, ...]


@dataclass(frozen=True)
class MetricSection:
    """The metrics of one group, and of one space."""

    heading: str
    note: str
    rows: tuple[MetricRow, ...]


def column_name(system: System) -> str:
    """Name a system in the head of the table, which needs short names."""
    return system.name if system.name in ("ceiling", "generated") else system.display_name


def count(rows: Iterable[Row], generator: str, baselines: Sequence[str]) -> dict[Rank, int]:
    """Count in how many metrics a generator has which rank; distances in a model's own space do not count."""
    found = [rank(row, generator, baselines) for row in rows if not in_own_space(row)]
    return {where: found.count(where) for where in RANKS}


def metric_sections(rows: Iterable[Row], systems: Systems, spaces: Mapping[str, str]) -> list[MetricSection]:
    """Lay out the table.

    Parameters
    ----------
    rows
        The metrics, by group.
    systems
        The columns.
    spaces
        Description of every space, by name; the distances in every space are a section of their own.
    """
    members: dict[tuple[str, str | None], list[MetricRow]] = {}
    described: set[str] = set()
    own: set[str | None] = set()
    for row in rows:
        own |= {row.space} if in_own_space(row) else set()
        description = None if row.info.name in described else row.info.description
        described.add(row.info.name)
        members.setdefault((row.info.group, row.space), []).append(_row(row, systems, description))
    sections = []
    for (group, space), laid_out in members.items():
        heading, note = GROUPS[group], ""
        if space is not None:
            heading, note = f"{heading}: space “{space}”", spaces.get(space, "")
        sections.append(MetricSection(heading, f"{note}; {_OWN_SPACE}" if space in own else note, tuple(laid_out)))
    return sections


def _row(row: Row, systems: Systems, description: str | None) -> MetricRow:
    """Lay out one metric."""
    cells = []
    for system in systems:
        own_rank = rank(row, system.name, systems.baselines) if system.kind == "generator" else None
        cells.append(_cell(row.values.get(system.name), own_rank))
    return MetricRow(
        name=row.info.display_name + (f" · {row.condition}" if row.condition else ""),
        best=_BEST[row.info.direction],
        description=description,
        tooltip=f"{row.label}: {row.info.description}",
        strip=strip_of(row.values, systems),
        cells=tuple(cells),
    )


def _cell(record: Record | None, own_rank: Rank | None) -> MetricCell:
    """Write one value with its interval."""
    if record is None:
        return MetricCell(NOTHING)
    interval = None
    if record.interval is not None:
        interval = " … ".join(number(end, record.value) for end in record.interval)
    return MetricCell(number(record.value), interval, own_rank)

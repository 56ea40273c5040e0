"""The table of metrics: one section per group and space, one column per system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scldm.evaluation.page.strip import Strip, strip_of
from scldm.evaluation.records import GROUPS, Row
from scldm.evaluation.systems import Systems
from scldm.evaluation.verdict import Rank, in_own_space, rank

__all__ = ["RANKS", "MetricRow", "MetricSection", "count_ranks", "metric_sections"]

#: A mark and words for every rank.
RANKS: dict[Rank, tuple[str, str]] = {
    "ceiling": ("●", "at the ceiling"),
    "between": ("◐", "between the ceiling and the best baseline"),
    "behind": ("○", "behind a baseline"),
}


@dataclass(frozen=True)
class MetricRow:
    """One metric: its values, the rank of every generator, and whether it is the first row that describes it."""

    row: Row
    ranks: Mapping[str, Rank | None]
    strip: Strip | None
    described: bool


@dataclass(frozen=True)
class MetricSection:
    """The metrics of one group, and of one space; in a model's own space nobody's rank counts."""

    heading: str
    space: str | None
    own_space: bool
    rows: list[MetricRow]


def count_ranks(rows: Iterable[Row], generator: str, baselines: Sequence[str]) -> dict[Rank, int]:
    """Count in how many metrics a generator has which rank; distances in a model's own space do not count."""
    found = [rank(row, generator, baselines) for row in rows if not in_own_space(row)]
    return {one: found.count(one) for one in RANKS}


def metric_sections(rows: Iterable[Row], systems: Systems) -> list[MetricSection]:
    """Divide the metrics into sections, in the order of the rows."""
    sections: dict[tuple[str, str | None], MetricSection] = {}
    described: set[str] = set()
    for row in rows:
        key = (row.info.group, row.space)
        if key not in sections:
            sections[key] = MetricSection(GROUPS[row.info.group], row.space, in_own_space(row), [])
        ranks = {name: rank(row, name, systems.baselines) for name in systems.generators}
        strip = strip_of(row.values, systems)
        sections[key].rows.append(MetricRow(row, ranks, strip, row.info.name not in described))
        described.add(row.info.name)
    return list(sections.values())

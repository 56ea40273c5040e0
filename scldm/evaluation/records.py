"""The numbers of a report as records, and as the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "GROUPS",
    "LATENT_SPACE",
    "PRIMARY_SPACE",
    "Direction",
    "Group",
    "MetricInfo",
    "Record",
    "Row",
    "Value",
    "in_words",
    "rows_of",
]

#: The space that findings are about; every report has it.
PRIMARY_SPACE = "pca"
#: The latent space of a model, in which its own cells are at an advantage or a disadvantage.
LATENT_SPACE = "latent"

Direction = Literal["lower", "higher", "closest to ceiling"]
Group = Literal["distances", "genes", "labels", "memorisation", "depth"]

#: Headings of the sections of a report, in their order.
GROUPS: dict[Group, str] = {
    "distances": "Distances between clouds of cells",
    "genes": "Genes",
    "labels": "Labels",
    "memorisation": "Memorisation of training cells",
    "depth": "Sequencing depth",
}


@dataclass(frozen=True)
class MetricInfo:
    """What a reader has to know of a metric.

    Attributes
    ----------
    name
        Key in the registry and in ``metrics.json``, such as ``frechet_distance``.
    display_name
        Name in tables and sentences, such as "Fréchet distance".
    group
        Section of the report.
    direction
        Which values are good.
    description
        One sentence that says what is computed.
    """

    name: str
    display_name: str
    group: Group
    direction: Direction
    description: str


def in_words(name: str) -> str:
    """Turn the name of a metric into words: ``marker_overlap`` is "Marker overlap"."""
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Value:
    """A number and the ends of its bootstrap interval (95 %), which are None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Record:
    """One number of a report; what could not be computed has no record.

    Attributes
    ----------
    metric
        Name of the metric.
    system
        Whose cells were measured.
    value, low, high
        The number and the ends of its bootstrap interval (95 %); the ends are None where there is no interval.
    space
        The space in which a distance was measured; None for a metric that needs none.
    condition
        The obs column for which the metric was computed; None for a metric of all cells.
    """

    metric: str
    system: str
    value: float
    low: float | None = None
    high: float | None = None
    space: str | None = None
    condition: str | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bootstrap interval (95 %); None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Row:
    """One metric, in one space or for one condition, of every system that has a value.

    Attributes
    ----------
    info
        The metric.
    space, condition
        As in :class:`Record`.
    values
        The records by system.
    """

    info: MetricInfo
    space: str | None
    condition: str | None
    values: Mapping[str, Record]

    @property
    def label(self) -> str:
        """Short text for a terminal, such as ``mmd2[hvg]``; the primary space is not named. Never parsed."""
        named = self.condition or (None if self.space == PRIMARY_SPACE else self.space)
        return self.info.name if named is None else f"{self.info.name}[{named}]"


def rows_of(records: Iterable[Record], metrics: Mapping[str, MetricInfo]) -> tuple[Row, ...]:
    """Gather records into rows, in the order in which the rows first appear."""
    found: dict[tuple[str, str | None, str | None], dict[str, Record]] = {}
    for record in records:
        found.setdefault((record.metric, record.space, record.condition), {})[record.system] = record
    return tuple(Row(metrics[name], space, condition, values) for (name, space, condition), values in found.items())

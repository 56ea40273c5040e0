"""The numbers of a report as records, and as the rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "GROUPS",
    "LATENT_SPACE",
    "PRIMARY_SPACE",
    "Direction",
    "Group",
    "MetricInfo",
    "Multiplicity",
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
    """A number and the ends of its interval (95 %), which are None where it has none."""

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
    value
        The number, a mean over halvings.
    low, high
        Ends of its interval (95 %) over which cells happened to be drawn; None where there is no interval.
    space
        The space in which a distance was measured; None for a metric that needs none.
    condition
        The obs column for which the metric was computed; None for a metric of all cells.
    real_low, real_high
        Between these real cells would score, in the place of the system, in 95 % of evaluations; None on a side where
        nothing is bad, or where it is not known.
    p_value
        How often real cells would score as badly or worse; None for a system that is not judged.
    halvings
        The numbers of the single halvings, which are the same for every system.
    """

    metric: str
    system: str
    value: float
    low: float | None = None
    high: float | None = None
    space: str | None = None
    condition: str | None = None
    real_low: float | None = None
    real_high: float | None = None
    p_value: float | None = None
    halvings: tuple[float, ...] = ()

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval (95 %) of the value; None where there is none."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def real_range(self) -> tuple[float | None, float | None] | None:
        """Between what real cells would score; None where that is not known."""
        return None if self.real_low is None and self.real_high is None else (self.real_low, self.real_high)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """Rebuild it from ``dataclasses.asdict``."""
        return cls(**{**values, "halvings": tuple(values.get("halvings", ()))})


@dataclass(frozen=True)
class Multiplicity:
    """How many metrics call a system worse than real cells, and how many of them chance explains.

    Attributes
    ----------
    system
        The judged generator.
    n_judged
        Metrics that are held against it; each calls real cells worse in 5 % of evaluations.
    n_worse
        Those that call it worse.
    n_worse_of_real
        As many as that call real cells worse in 19 of 20 evaluations, at most: metrics depend on each other.
    """

    system: str
    n_judged: int
    n_worse: int
    n_worse_of_real: int

    @property
    def beyond_chance(self) -> bool:
        """Whether more metrics call the system worse than chance explains."""
        return self.n_worse > self.n_worse_of_real


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

"""What an evaluation found: the numbers by system, findings, and how they are kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scldm.errors import UserError, nearest_names
from scldm.evaluation.drawn import DrawnCells
from scldm.evaluation.findings import Finding
from scldm.evaluation.labels import LabelFidelity
from scldm.evaluation.material import GeneOverlap
from scldm.evaluation.migrations import FORMAT_VERSION, to_present_format
from scldm.evaluation.records import PRIMARY_SPACE, MetricInfo, Multiplicity, Record, Row, rows_of
from scldm.evaluation.systems import Systems
from scldm.evaluation.table import lay_out
from scldm.files import write_text

__all__ = ["EvaluationReport"]

_PLAIN = ("profile", "n_cells", "n_halvings", "n_permutations", "seed", "spaces")


@dataclass(frozen=True)
class EvaluationReport:
    """How far systems are from held-out real cells.

    Attributes
    ----------
    records
        The numbers: one per metric, space or condition, and system.
    metrics
        What is known of every metric, by name.
    systems
        What was compared, in order: ceiling, judged generators, baselines, memoriser. The first generator is the one
        that findings and figures are about.
    labels
        How well every label, and every combination of labels, is met.
    findings
        What the numbers say, in words.
    n_cells
        Cells on either side of every comparison.
    multiplicity
        For every judged generator, how many metrics call it worse than real, and how many of them chance explains.
    n_halvings
        Random divisions of the held-out cells that values are averaged over, at most.
    n_permutations
        Permutations behind what real cells would score, at most.
    spaces
        Where distances are measured: a description by name.
    genes
        How the genes of the files fit together.
    conditions
        The judged obs columns.
    seed
        Of everything that was drawn.
    profile
        ``standard`` or ``published``.
    notes
        What a reader must know about how the numbers came about.
    drawn
        The cells that figures are drawn from; None in a report that was read from a file.
    """

    records: tuple[Record, ...]
    metrics: dict[str, MetricInfo]
    systems: Systems
    labels: tuple[LabelFidelity, ...]
    findings: tuple[Finding, ...]
    multiplicity: tuple[Multiplicity, ...]
    n_cells: int
    n_halvings: int
    n_permutations: int
    spaces: dict[str, str]
    genes: GeneOverlap
    conditions: tuple[str, ...]
    seed: int
    profile: str
    notes: tuple[str, ...]
    drawn: DrawnCells | None = field(default=None, repr=False, compare=False)

    @property
    def generators(self) -> tuple[str, ...]:
        """Names of the judged generators."""
        return self.systems.generators

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The records gathered by metric and space or condition, in the order of the table."""
        return rows_of(self.records, self.metrics)

    def value(
        self, metric: str, system: str | None = None, *, space: str | None = None, condition: str | None = None
    ) -> float | None:
        """Look one value up, such as ``report.value("recall", "ceiling", space="hvg")``.

        Parameters
        ----------
        metric
            Name of the metric.
        system
            Name of the system; None is the first judged generator.
        space
            Of a distance; None is the primary space.
        condition
            The obs column, for a metric that is computed for every condition.

        Returns
        -------
        None if it could not be computed for this system.

        Raises
        ------
        UserError
            If there is no such metric, system, space or condition.
        """
        found = self.record(metric, system, space=space, condition=condition)
        return None if found is None else found.value

    def interval(
        self, metric: str, system: str | None = None, *, space: str | None = None, condition: str | None = None
    ) -> tuple[float, float] | None:
        """Look up the interval (95 %) of one value; see `value`. None where there is none."""
        found = self.record(metric, system, space=space, condition=condition)
        return None if found is None else found.interval

    def record(
        self, metric: str, system: str | None = None, *, space: str | None = None, condition: str | None = None
    ) -> Record | None:
        """Look up the record of one value; see `value`."""
        system = self.generators[0] if system is None else system
        if metric not in self.metrics:
            raise UserError(f"There is no metric '{metric}'; {nearest_names(metric, self.metrics)}")
        if system not in self.systems.names:
            raise UserError(f"There is no system '{system}'; {nearest_names(system, self.systems.names)}")
        rows = [row for row in self.rows if row.info.name == metric]
        if space is None and any(row.space for row in rows):
            space = PRIMARY_SPACE
        for row in rows:
            if (row.space, row.condition) == (space, condition):
                return row.values.get(system)
        raise UserError(_no_such_row(metric, rows, space, condition))

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the cells as plain lists, dictionaries and numbers."""
        result: dict[str, Any] = {"format_version": FORMAT_VERSION}
        result |= {name: getattr(self, name) for name in _PLAIN}
        result |= {name: list(getattr(self, name)) for name in ("conditions", "notes")}
        result["genes"] = asdict(self.genes)
        result["systems"] = [{"name": s.name, "kind": s.kind, "meaning": s.meaning} for s in self.systems]
        for name in ("findings", "labels", "multiplicity", "records"):
            result[name] = [asdict(one) for one in getattr(self, name)]
        result["metrics"] = [asdict(info) for info in self.metrics.values()]
        return result

    @classmethod
    def from_dict(cls, values: Any) -> EvaluationReport:
        """Rebuild a report from `to_dict`, also from that of an earlier version; without cells.

        Raises
        ------
        UserError
            If it is damaged, or was written by another format.
        """
        try:
            return cls._from_present_format(to_present_format(values))
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"This evaluation report is damaged: {type(error).__name__} {error}") from error

    @classmethod
    def _from_present_format(cls, values: Mapping[str, Any]) -> EvaluationReport:
        generators = [system["name"] for system in values["systems"] if system["kind"] == "generator"]
        return cls(
            records=tuple(Record.from_dict(record) for record in values["records"]),
            metrics={info["name"]: MetricInfo(**info) for info in values["metrics"]},
            systems=Systems.of({system["name"]: system["meaning"] for system in values["systems"]}, generators),
            labels=tuple(LabelFidelity.from_dict(row) for row in values["labels"]),
            findings=tuple(Finding(**finding) for finding in values["findings"]),
            multiplicity=tuple(Multiplicity(**one) for one in values["multiplicity"]),
            genes=GeneOverlap(**values["genes"]),
            conditions=tuple(values["conditions"]),
            notes=tuple(values["notes"]),
            **{name: values[name] for name in _PLAIN},
        )

    def save(self, path: str | Path) -> None:
        """Write the report as JSON (``metrics.json``); the file appears whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> EvaluationReport:
        """Read a report that `save` wrote; see `from_dict`."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def table(self) -> str:
        """Lay numbers, findings and notes out as plain text, one row per metric and one column per system."""
        return lay_out(self)


def _no_such_row(metric: str, rows: Iterable[Row], space: str | None, condition: str | None) -> str:
    """Say for which spaces or conditions there is a metric."""
    for kind, asked, known in (
        ("space", space, [row.space for row in rows if row.space]),
        ("condition", condition, [row.condition for row in rows if row.condition]),
    ):
        if asked is not None and not known:
            return f"'{metric}' is not computed for every {kind}; leave {kind}='{asked}' out"
        if asked is not None and asked not in known:
            return f"There is no '{metric}' for the {kind} '{asked}'; {nearest_names(asked, known)}"
        if asked is None and known:
            return f"'{metric}' is computed for every {kind}: name one of {', '.join(map(repr, known))}"
    raise AssertionError("the row is there")

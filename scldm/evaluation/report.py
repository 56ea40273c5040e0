"""What an evaluation found: figures of merit by system, as JSON, as a table and as a picture."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scldm.errors import UserError, nearest_names
from scldm.evaluation.pictures import Portrait, draw
from scldm.evaluation.preparation import GeneOverlap
from scldm.evaluation.registry import Direction

__all__ = ["FORMAT_VERSION", "EvaluationReport", "FigureValues"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class FigureValues:
    """One figure of merit for every system; a value is None where it could not be computed."""

    name: str
    direction: Direction
    description: str
    values: dict[str, float | None]


@dataclass(frozen=True)
class EvaluationReport:
    """How far systems are from held-out real cells.

    Attributes
    ----------
    figures
        The figures of merit, each with its value for every system.
    systems
        What each column of values stands for, by name, in order.
    n_cells
        Cells on either side of every comparison.
    n_features
        Dimension of the feature space.
    genes
        How the genes of the files fit together.
    conditions
        The judged obs columns.
    seed
        Of the split, the subsamples and the baseline.
    notes
        What a reader must know about how the figures came about.
    portraits
        What `plot` draws, by system; empty in a report that was read from a file.
    """

    figures: tuple[FigureValues, ...]
    systems: dict[str, str]
    n_cells: int
    n_features: int
    genes: GeneOverlap
    conditions: tuple[str, ...]
    seed: int
    notes: tuple[str, ...]
    portraits: Mapping[str, Portrait] = field(default_factory=dict, repr=False, compare=False)

    def value(self, figure: str, system: str = "generated") -> float | None:
        """Look one value up, such as ``report.value("frechet_distance", "ceiling")``."""
        for row in self.figures:
            if row.name == figure:
                if system not in row.values:
                    raise UserError(f"There is no system '{system}'; {nearest_names(system, row.values)}")
                return row.values[system]
        raise UserError(f"There is no figure '{figure}'; {nearest_names(figure, [row.name for row in self.figures])}")

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the portraits as plain lists, dictionaries and numbers."""
        result: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for name in ("n_cells", "n_features", "seed", "systems"):
            result[name] = getattr(self, name)
        result["conditions"] = list(self.conditions)
        result["genes"] = asdict(self.genes)
        result["figures"] = [asdict(row) for row in self.figures]
        result["notes"] = list(self.notes)
        return result

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationReport:
        """Rebuild a report from `to_dict`; without portraits.

        Raises
        ------
        UserError
            If it was written by a newer format.
        """
        version = values.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise UserError(
                f"This evaluation report has format {version}; this version of scldm reads {FORMAT_VERSION}"
            )
        return cls(
            figures=tuple(FigureValues(**row) for row in values["figures"]),
            systems=dict(values["systems"]),
            n_cells=values["n_cells"],
            n_features=values["n_features"],
            genes=GeneOverlap(**values["genes"]),
            conditions=tuple(values["conditions"]),
            seed=values["seed"],
            notes=tuple(values["notes"]),
        )

    def save(self, path: str | Path) -> None:
        """Write the report as JSON (``metrics.json``); the file appears whole or not at all."""
        path = Path(path)
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> EvaluationReport:
        """Read a report that `save` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def table(self) -> str:
        """Lay the figures out as plain text, one per row and one column per system."""
        header = ["figure", "best", *self.systems]
        rows = [
            [row.name, row.direction, *(_number(row.values.get(system)) for system in self.systems)]
            for row in self.figures
        ]
        widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
        lines = []
        for figure, best, *values in [header, ["-" * width for width in widths], *rows]:
            right = [text.rjust(width) for text, width in zip(values, widths[2:], strict=True)]
            lines.append("  ".join([figure.ljust(widths[0]), best.ljust(widths[1]), *right]))
        summary = (
            f"{self.n_cells} cells on either side, {self.genes.n_judged} genes, {self.n_features} features, "
            f"seed {self.seed}"
        )
        notes = [textwrap.fill(note, width=98, initial_indent="* ", subsequent_indent="  ") for note in self.notes]
        return "\n".join([summary, "", *lines, *([""] if notes else []), *notes])

    def plot(self, path: str | Path) -> None:
        """Draw real beside generated cells as a picture (PNG, or what the file ending says).

        Raises
        ------
        UserError
            If the report was read from a file, which does not hold the cells.
        """
        if not self.portraits:
            raise UserError("A report that was read from a file has no cells to draw; run evaluate again")
        title = (
            f"Generated against {self.n_cells} held-out real cells (in brackets: real against real)\n"
            f"Fréchet distance {self._pair('frechet_distance')},  1-NN accuracy "
            f"{self._pair('nearest_neighbour_accuracy')},  W2 {self._pair('wasserstein2')},  gene-gene correlation "
            f"{self._pair('gene_gene_correlation')}"
        )
        draw(self.portraits, Path(path), label=self.conditions[0] if self.conditions else None, title=title)

    def _pair(self, figure: str) -> str:
        """Write a generated value beside its ceiling."""
        return f"{_number(self.value(figure))} ({_number(self.value(figure, 'ceiling'))})"


def _number(value: float | None) -> str:
    """Write a value with enough digits to compare it."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 1.995 else f"{value:.4f}" if abs(value) < 0.0995 else f"{value:.3f}"

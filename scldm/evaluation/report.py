"""What an evaluation found: figures of merit by system, findings, and the ways to keep and show them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scldm.errors import UserError, nearest_names
from scldm.evaluation.exhibits import Exhibits
from scldm.evaluation.findings import Finding
from scldm.evaluation.labels import LabelFidelity
from scldm.evaluation.preparation import GeneOverlap
from scldm.evaluation.table import lay_out, number
from scldm.evaluation.values import FigureValues, Value

__all__ = ["FORMAT_VERSION", "EvaluationReport", "FigureValues", "Value"]

FORMAT_VERSION = 2


@dataclass(frozen=True)
class EvaluationReport:
    """How far systems are from held-out real cells.

    Attributes
    ----------
    figures
        The figures of merit, each with its value and interval for every system.
    systems
        What each system stands for, by name, in order.
    generators
        The judged systems; the first is the one that findings and pictures are about.
    labels
        How well every label, and every combination of labels, is met.
    findings
        What the numbers say, in words.
    n_cells
        Cells on either side of every comparison.
    n_splits
        Random divisions of the held-out cells that values are averaged over.
    n_resamples
        Bootstrap resamples behind every interval.
    spaces
        Where distances are measured: a description by name.
    genes
        How the genes of the files fit together.
    conditions
        The judged obs columns.
    seed
        Of the splits, the subsamples, the baselines and the bootstrap.
    profile
        ``standard`` or ``published``.
    notes
        What a reader must know about how the figures came about.
    exhibits
        The cells that pictures are drawn from; None in a report that was read from a file.
    """

    figures: tuple[FigureValues, ...]
    systems: dict[str, str]
    generators: tuple[str, ...]
    labels: tuple[LabelFidelity, ...]
    findings: tuple[Finding, ...]
    n_cells: int
    n_splits: int
    n_resamples: int
    spaces: dict[str, str]
    genes: GeneOverlap
    conditions: tuple[str, ...]
    seed: int
    profile: str
    notes: tuple[str, ...]
    exhibits: Exhibits | None = field(default=None, repr=False, compare=False)

    def value(self, figure: str, system: str | None = None) -> float | None:
        """Look one value up, such as ``report.value("frechet_distance", "ceiling")``.

        Parameters
        ----------
        figure
            Name of the figure, with its space or condition: ``"recall"``, ``"recall[hvg]"``.
        system
            Name of the system; None is the first judged generator.

        Raises
        ------
        UserError
            If there is no such figure or system.
        """
        found = self._find(figure, system)
        return None if found is None else found.value

    def interval(self, figure: str, system: str | None = None) -> tuple[float, float] | None:
        """Look up the bootstrap interval (95 %) of one value; see `value`. None where there is none."""
        found = self._find(figure, system)
        return None if found is None or found.low is None or found.high is None else (found.low, found.high)

    def _find(self, figure: str, system: str | None) -> Value | None:
        """Look one value up."""
        system = self.generators[0] if system is None else system
        for row in self.figures:
            if row.name == figure:
                if system not in row.values:
                    raise UserError(f"There is no system '{system}'; {nearest_names(system, row.values)}")
                return row.values[system]
        raise UserError(f"There is no figure '{figure}'; {nearest_names(figure, [row.name for row in self.figures])}")

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the exhibits as plain lists, dictionaries and numbers."""
        result: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for name in ("profile", "n_cells", "n_splits", "n_resamples", "seed", "systems", "spaces"):
            result[name] = getattr(self, name)
        for name in ("generators", "conditions", "notes"):
            result[name] = list(getattr(self, name))
        result["genes"] = asdict(self.genes)
        for name in ("findings", "figures", "labels"):
            result[name] = [asdict(row) for row in getattr(self, name)]
        return result

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvaluationReport:
        """Rebuild a report from `to_dict`; without exhibits.

        Raises
        ------
        UserError
            If it was written by another format.
        """
        version = values.get("format_version")
        if version == 1:
            raise UserError(
                "This evaluation report has format 1, from an earlier version of scldm, whose figures have no "
                "intervals; run evaluate again to make it anew"
            )
        if version != FORMAT_VERSION:
            raise UserError(
                f"This evaluation report has format {version}; this version of scldm reads {FORMAT_VERSION}"
            )
        plain = {name: values[name] for name in ("n_cells", "n_splits", "n_resamples", "seed", "profile")}
        return cls(
            figures=tuple(FigureValues.from_dict(row) for row in values["figures"]),
            systems=dict(values["systems"]),
            generators=tuple(values["generators"]),
            labels=tuple(LabelFidelity.from_dict(row) for row in values["labels"]),
            findings=tuple(Finding(**row) for row in values["findings"]),
            spaces=dict(values["spaces"]),
            genes=GeneOverlap(**values["genes"]),
            conditions=tuple(values["conditions"]),
            notes=tuple(values["notes"]),
            **plain,
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
        """Lay figures, findings and notes out as plain text, one row per figure and one column per system."""
        summary = (
            f"{self.n_cells} cells on either side, {self.n_splits} split{'s' if self.n_splits > 1 else ''}, "
            f"{self.genes.n_judged} genes, seed {self.seed}; in brackets: bootstrap interval (95 %)"
        )
        return lay_out(summary, self.figures, tuple(self.systems), self.generators, self.findings, self.notes)

    def plot(self, path: str | Path) -> None:
        """Draw real beside generated cells as a picture (PNG, or what the file ending says).

        Raises
        ------
        UserError
            If the report was read from a file, which does not hold the cells.
        """
        from scldm.evaluation.pictures import draw

        exhibits = self._exhibits()
        brackets = " (in brackets: real against real)" if "ceiling" in self.systems else ""
        shown = {
            "Fréchet distance": "frechet_distance",
            "1-NN accuracy": "nearest_neighbour_accuracy",
            "W2": "wasserstein2",
            "gene-gene correlation": "gene_gene_correlation",
        }
        there = {row.name for row in self.figures}
        numbers = ",  ".join(f"{text} {self._pair(name)}" for text, name in shown.items() if name in there)
        ours = self.generators[0]
        name = "Generated" if ours == "generated" else ours
        title = f"{name} against {self.n_cells} held-out real cells{brackets}\n{numbers}"
        draw(exhibits.sides, Path(path), label=exhibits.label, title=title, ours=ours)

    def save_html(self, path: str | Path) -> None:
        """Write the report as one self-contained page: tables, findings and pictures.

        Raises
        ------
        UserError
            If the report was read from a file, which does not hold the cells.
        """
        from scldm.evaluation.html import write_html

        self._exhibits()
        write_html(self, Path(path))

    def _exhibits(self) -> Exhibits:
        """Give the cells to draw, or say where they are."""
        if self.exhibits is None:
            raise UserError("A report that was read from a file has no cells to draw; run evaluate again")
        return self.exhibits

    def _pair(self, figure: str) -> str:
        """Write the value of the first generator, and the ceiling behind it."""
        text = number(self.value(figure))
        return f"{text} ({number(self.value(figure, 'ceiling'))})" if "ceiling" in self.systems else text

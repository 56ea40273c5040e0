"""What the templates are filled with: texts and numbers, no HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import TYPE_CHECKING, Any

from scldm.evaluation.page.figures import figure_sections
from scldm.evaluation.page.labels import label_tables
from scldm.evaluation.page.metrics import RANKS, column_name, count, metric_sections
from scldm.evaluation.page.numbers import NOTHING
from scldm.evaluation.plots.embedding import Embedding

if TYPE_CHECKING:
    from scldm.evaluation.report import EvaluationReport

__all__ = ["Card", "Fact", "Section", "page_context"]

_LIBRARIES = ("scldm", "numpy", "scipy", "anndata", "scanpy", "scikit-learn", "POT", "matplotlib")
_LEVELS = {"problem": "Problem", "warning": "Look at this", "good": "Good"}


@dataclass(frozen=True)
class Section:
    """One section of the page: the template that lays its content out."""

    anchor: str
    title: str
    template: str
    content: Any


@dataclass(frozen=True)
class Fact:
    """One entry of the header."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Card:
    """One finding."""

    level: str
    heading: str
    sentence: str


def page_context(report: EvaluationReport, embedding: Embedding) -> dict[str, Any]:
    """Collect all that is on the page, and draw the figures."""
    systems = report.systems
    tables = label_tables(report.labels, systems.generators)
    sections = [
        Section("findings", "Findings", "findings.html.j2", _findings(report)),
        Section("metrics", "Metrics", "metrics.html.j2", metric_sections(report.rows, systems, report.spaces)),
        *(Section(f.anchor, f.title, "figures.html.j2", f) for f in figure_sections(report, embedding)),
        Section("labels", "Label by label", "labels.html.j2", tables),
        Section("notes", "Notes and definitions", "notes.html.j2", _notes(report)),
    ]
    scores = {name: count(report.rows, name, systems.baselines) for name in systems.generators}
    return {
        "title": _title([systems.named(name).display_name for name in systems.generators]),
        "facts": _facts(report),
        "scores": {systems.named(name).display_name: c for name, c in scores.items() if sum(c.values())},
        "systems": systems,
        "kinds": {system.kind for system in systems},
        "column_name": column_name,
        "ranks": RANKS,
        "sections": [section for section in sections if section.content],
    }


def _title(generators: Sequence[str]) -> str:
    """Say what was judged."""
    if list(generators) == ["generated cells"]:
        return "How real are the generated cells?"
    *others, last = generators
    return f"How real are cells from {', '.join(others)}{' and ' if others else ''}{last}?"


def _facts(report: EvaluationReport) -> list[Fact]:
    """Say what was compared."""
    splits = "one random split" if report.n_splits == 1 else f"mean of {report.n_splits} random splits"
    return [
        Fact("cells on either side", f"{report.n_cells:,}", f"per comparison; {splits}"),
        Fact("genes", f"{report.genes.n_judged:,}", f"of {report.genes.n_shared:,} that all files share"),
        Fact("spaces for distances", ", ".join(report.spaces) or NOTHING),
        Fact("conditions", ", ".join(report.conditions) or "none", "columns of labels"),
        Fact("intervals", "95 %", f"{report.n_resamples} bootstrap resamples"),
        Fact("profile", report.profile, f"seed {report.seed}"),
    ]


def _findings(report: EvaluationReport) -> list[tuple[str | None, list[Card]]]:
    """Sort the findings, problems first, one generator after the other; a single one needs no heading."""
    groups: list[tuple[str | None, list[Card]]] = []
    for name in dict.fromkeys([*report.systems.generators, *(finding.system for finding in report.findings)]):
        cards = [
            Card(level, f"{heading} · {finding.topic}", finding.sentence)
            for level, heading in _LEVELS.items()
            for finding in report.findings
            if finding.system == name and finding.level == level
        ]
        heading = report.systems.named(name).display_name if len(report.systems.generators) > 1 else None
        groups += [(heading, cards)] if cards else []
    return groups


def _notes(report: EvaluationReport) -> dict[str, Any]:
    """Collect notes, what the words mean, and versions."""
    terms = {
        "ceiling" if system.kind == "ceiling" else system.display_name: system.meaning for system in report.systems
    }
    terms |= {f"space “{name}”": text for name, text in report.spaces.items()}
    versions = {"Python": python_version()} | {name: found for name in _LIBRARIES if (found := _version(name))}
    return {"notes": report.notes, "has_cells": report.drawn is not None, "terms": terms, "versions": versions}


def _version(library: str) -> str | None:
    """Look up the installed version of a library."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None

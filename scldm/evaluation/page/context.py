"""What the templates are filled with: the report, and what is laid out or drawn from it; no HTML."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import TYPE_CHECKING, Any

from scldm.evaluation.findings import Finding
from scldm.evaluation.page.figures import figure_sections
from scldm.evaluation.page.labels import label_tables
from scldm.evaluation.page.metrics import RANKS, count_ranks, metric_sections
from scldm.evaluation.plots.embedding import Embedding

if TYPE_CHECKING:
    from scldm.evaluation.report import EvaluationReport

__all__ = ["Section", "page_context"]

_LIBRARIES = ("scldm", "numpy", "scipy", "anndata", "scanpy", "scikit-learn", "POT", "matplotlib")
_LEVELS = ("problem", "warning", "good")


@dataclass(frozen=True)
class Section:
    """One section of the page; the template lays the content out."""

    anchor: str
    title: str
    template: str
    content: Any


def page_context(report: EvaluationReport, embedding: Embedding) -> dict[str, Any]:
    """Collect all that is on the page, and draw the figures."""
    systems = report.systems
    sections = [
        Section("findings", "Findings", "findings.html.j2", _findings(report)),
        Section("metrics", "Metrics", "metrics.html.j2", metric_sections(report.rows, systems)),
        *(Section(f.anchor, f.title, "figures.html.j2", f) for f in figure_sections(report, embedding)),
        Section("labels", "Label by label", "labels.html.j2", label_tables(report.labels, systems.generators)),
        Section("notes", "Notes and definitions", "notes.html.j2", _versions()),
    ]
    return {
        "title": _title(report),
        "report": report,
        "systems": systems,
        "kinds": {system.kind for system in systems},
        "scores": {name: count_ranks(report.rows, name, systems.baselines) for name in systems.generators},
        "ranks": RANKS,
        "sections": [section for section in sections if section.content],
    }


def _title(report: EvaluationReport) -> str:
    """Say what was judged."""
    if report.systems.generators == ("generated",):
        return "How real are the generated cells?"
    *others, last = (report.systems.named(name).display_name for name in report.systems.generators)
    return f"How real are cells from {', '.join(others)}{' and ' if others else ''}{last}?"


def _findings(report: EvaluationReport) -> dict[str, list[Finding]]:
    """Sort the findings by generator, problems first."""
    by_level = sorted(report.findings, key=lambda finding: _LEVELS.index(finding.level))
    names = dict.fromkeys([*report.systems.generators, *(finding.system for finding in report.findings)])
    groups = {name: [finding for finding in by_level if finding.system == name] for name in names}
    return {name: findings for name, findings in groups.items() if findings}


def _versions() -> dict[str, str]:
    """Look up the versions of Python and of the libraries that are installed."""
    found = {"Python": python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found

"""Write the page: one file without any outside resource, from templates and what they are filled with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from scldm.evaluation.findings import LEVELS, Finding
from scldm.evaluation.page.figures import FIGURES, draw_figures
from scldm.evaluation.page.labels import MAX_ROWS, bar_of, label_tables
from scldm.evaluation.page.metrics import RANKS, count_ranks, metric_sections, number, real_range, strip_of
from scldm.evaluation.plots.embedding import Embedding
from scldm.evaluation.verdict import in_own_space, rank
from scldm.files import write_text

if TYPE_CHECKING:
    from scldm.evaluation.report import EvaluationReport

__all__ = ["environment", "write_page"]

_LIBRARIES = ("scldm", "numpy", "scipy", "anndata", "scanpy", "scikit-learn", "matplotlib")


def write_page(report: EvaluationReport, path: str | Path, embedding: Embedding = "umap") -> None:
    """Write a report as one self-contained web page, which needs neither a network nor scripts.

    The same report always gives the same file. A report that was read from a file has no cells: its page has the
    numbers and no figures.

    Parameters
    ----------
    report
        What `evaluate` returned.
    path
        Where to write it, such as ``report.html``; the file appears whole or not at all.
    embedding
        How to draw cells in one plane: ``umap`` (10-20 s) or ``pca`` (at once).
    """
    page = environment().get_template("page.html.j2").render(_context(report, embedding))
    write_text(path, page + "\n")


def environment() -> Environment:
    """Load the templates: every text is escaped, and a name that is missing is an error."""
    found = Environment(
        loader=PackageLoader("scldm.evaluation.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "px": "{:.1f}".format, "thousands": "{:,}".format, "percent": "{:.0%}".format}
    found.globals |= {"bar_of": bar_of, "in_own_space": in_own_space, "rank_of": rank, "real_range": real_range}
    found.globals["strip_of"] = strip_of
    found.globals |= {"max_label_rows": MAX_ROWS, "ranks": RANKS}
    return found


def _context(report: EvaluationReport, embedding: Embedding) -> dict[str, Any]:
    """Collect what the templates are filled with, and draw the figures; no HTML."""
    systems, figures = report.systems, draw_figures(report, embedding)
    # by anchor: the title, the template, and what it lays out
    sections: dict[str, tuple[str, str, Any]] = {
        "findings": ("Findings", "findings.html.j2", _findings(report)),
        "metrics": ("Metrics", "metrics.html.j2", metric_sections(report.rows)),
        **{anchor: (FIGURES[anchor], "figures.html.j2", drawn) for anchor, drawn in figures.items()},
        "labels": ("Label by label", "labels.html.j2", label_tables(report.labels)),
        "notes": ("Notes and definitions", "notes.html.j2", _versions()),
    }
    return {
        "page_title": _title(report),
        "report": report,
        "systems": systems,
        "kinds": {system.kind for system in systems},
        "scores": {name: count_ranks(report.rows, name, systems.baselines) for name in systems.generators},
        "described_in": {row.info.name: row for row in reversed(report.rows)},
        "sections": {anchor: section for anchor, section in sections.items() if section[-1]},
    }


def _title(report: EvaluationReport) -> str:
    if report.systems.generators == ("generated",):
        return "How real are the generated cells?"
    *others, last = (report.systems.named(name).display_name for name in report.systems.generators)
    return f"How real are cells from {', '.join(others)}{' and ' if others else ''}{last}?"


def _findings(report: EvaluationReport) -> dict[str, list[Finding]]:
    """Sort the findings by generator, problems first."""
    by_level = sorted(report.findings, key=lambda finding: LEVELS.index(finding.level))
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

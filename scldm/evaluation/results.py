"""The files of an evaluation: the numbers, the page, and the overview."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scldm.evaluation.html import write_html
from scldm.evaluation.pictures.embedding import Embedding

if TYPE_CHECKING:
    from scldm.evaluation.report import EvaluationReport

__all__ = ["REPORT_FILES", "write_results"]

REPORT_FILES = frozenset({"metrics.json", "report.html", "figure.png"})


def write_results(report: EvaluationReport, directory: Path, embedding: Embedding) -> None:
    """Write `REPORT_FILES` into an existing directory."""
    report.save(directory / "metrics.json")
    report.plot(directory / "figure.png")
    write_html(report, directory / "report.html", embedding)

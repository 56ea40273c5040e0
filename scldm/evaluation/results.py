"""The files of an evaluation: the numbers, the page, and the overview."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scldm.evaluation.page.write import write_page
from scldm.evaluation.plots.overview import draw_overview

if TYPE_CHECKING:
    from scldm.evaluation.plots.embedding import Embedding
    from scldm.evaluation.report import EvaluationReport

__all__ = ["RESULT_FILES", "write_results"]

RESULT_FILES = frozenset({"metrics.json", "report.html", "figure.png"})


def write_results(report: EvaluationReport, directory: Path, embedding: Embedding) -> None:
    """Write `RESULT_FILES` into an existing directory."""
    report.save(directory / "metrics.json")
    draw_overview(report, directory / "figure.png")
    write_page(report, directory / "report.html", embedding)

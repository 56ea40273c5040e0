"""Markdown tables of reports, for people to read and to put beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scldm.evaluation import EvaluationReport
from scldm.evaluation.table import cell

__all__ = ["markdown_table", "metric_table"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of text out as a table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines) + "\n"


def metric_table(reports: Mapping[str, EvaluationReport], systems: Sequence[str]) -> str:
    """Lay the metrics of reports out in markdown: one per row, one column per system, with 95 % bootstrap intervals.

    Reports come by the name of their data; the names are a column where there are several. A report without one of the
    systems leaves it empty.
    """
    several = len(reports) > 1
    header = [*(["data"] if several else []), "metric", "best", *systems]
    rows = []
    for name, report in reports.items():
        for row in report.rows:
            values = [cell(row.values.get(system)) for system in systems]
            rows.append([*([name] if several else []), row.label, row.info.direction, *values])
    return markdown_table(header, rows)

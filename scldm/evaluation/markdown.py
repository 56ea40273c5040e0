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
    """Lay the metrics of one or several reports out, one per row and one column per system.

    Parameters
    ----------
    reports
        By the name of the data; the names are a column where there are several.
    systems
        Columns, in order; a report without one of them leaves it empty.

    Returns
    -------
    A markdown table; values with their 95 % bootstrap intervals.
    """
    several = len(reports) > 1
    header = [*(["data"] if several else []), "metric", "best", *systems]
    rows = []
    for name, report in reports.items():
        for row in report.rows:
            values = [cell(row.values.get(system)) for system in systems]
            rows.append([*([name] if several else []), row.label, row.info.direction, *values])
    return markdown_table(header, rows)

"""Markdown tables of reports, for people to read and to put beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scldm.evaluation import EvaluationReport
from scldm.evaluation.table import number

__all__ = ["figure_table", "markdown_table", "value_with_interval"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of text out as a table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def figure_table(reports: Mapping[str, EvaluationReport], systems: Sequence[str]) -> str:
    """Lay the figures of one or several reports out, one per row and one column per system.

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
    header = [*(["data"] if several else []), "figure", "best", *systems]
    rows = []
    for name, report in reports.items():
        for row in report.figures:
            values = [value_with_interval(report, row.name, system) for system in systems]
            rows.append([*([name] if several else []), row.name, row.direction, *values])
    return markdown_table(header, rows)


def value_with_interval(report: EvaluationReport, figure: str, system: str) -> str:
    """Write a value and its interval, such as ``7.36 [7.12, 7.60]``; a dash where there is none."""
    value = report.value(figure, system) if system in report.systems else None
    if value is None:
        return "-"
    interval = report.interval(figure, system)
    bounds = "" if interval is None else f" [{number(interval[0])}, {number(interval[1])}]"
    return number(value) + bounds

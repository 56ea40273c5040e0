"""Reports as text: for a terminal, and as markdown tables to put beside others."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from scldm.evaluation.records import Record, Row
from scldm.evaluation.verdict import at_ceiling

if TYPE_CHECKING:
    from scldm.evaluation.report import EvaluationReport

__all__ = ["lay_out", "markdown_table", "metric_table", "number"]

WIDTH = 110
#: Stands beside a value that real cells would hardly score.
WORSE = "*"
_BEST = {"lower": "lower", "higher": "higher", "closest to ceiling": "ceiling"}
_MARKS = {"problem": "PROBLEM", "warning": "warning", "note": "note", "good": "good"}


def lay_out(report: EvaluationReport) -> str:
    """Lay a report out: a summary, one line per metric, by group, then findings and notes.

    Of the judged generators it says what real cells would score in their place, and marks what is worse.
    """
    rows, systems, findings = report.rows, report.systems, report.findings
    summary = (
        f"{report.n_cells} cells on either side, {report.n_halvings} halving{'s' if report.n_halvings > 1 else ''}, "
        f"{report.genes.n_judged} genes, seed {report.seed}"
    )
    if report.n_permutations:
        summary += f"\nin brackets: what real cells would score in 95 % of cases; {WORSE} worse than that"
    header = ["metric", "best", *systems.names]
    lines = [header]
    for row in rows:
        cells = [_judged(row, name) if name in systems.generators else _plain(row, name) for name in systems.names]
        lines.append([row.label, _BEST[row.info.direction], *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def render(line: Sequence[str]) -> str:
        numbers = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
        return "  ".join([line[0].ljust(widths[0]), line[1].ljust(widths[1]), *numbers]).rstrip()

    result = [summary, "", render(header), "  ".join("-" * width for width in widths)]
    for _, group in groupby(zip(rows, lines[1:], strict=True), key=lambda pair: pair[0].info.group):
        result += [*(render(line) for _, line in group), ""]
    result += [_wrap(f"{_MARKS[f.level]} ({f.system}): {f.sentence}") for f in findings]
    if findings and report.notes:
        result.append("")
    result += [_wrap(note) for note in report.notes]
    return "\n".join(result).rstrip()


def number(value: float | None) -> str:
    """Write a value with enough digits to compare it."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 1.995 else f"{value:.4f}" if abs(value) < 0.0995 else f"{value:.3f}"


def _plain(row: Row, system: str) -> str:
    """Write a value; a dash for none."""
    record = row.values.get(system)
    return number(None if record is None else record.value)


def _judged(row: Row, system: str) -> str:
    """Write a value, a mark if real cells would hardly score it, and what they would: such as ``7.36 * [to 7.12]``."""
    record, text = row.values.get(system), _plain(row, system)
    if record is None or record.real_range is None:
        return text
    low, high = record.real_range
    real = (
        f"{number(low)} up"
        if high is None
        else f"to {number(high)}"
        if low is None
        else f"{number(low)} - {number(high)}"
    )
    return f"{text} {WORSE if at_ceiling(row, system) is False else ' '} [{real}]"


def _with_interval(record: Record | None) -> str:
    """Write a value with its interval, such as ``7.36 [7.12, 7.60]``; a dash for no value."""
    if record is None or record.interval is None:
        return number(None if record is None else record.value)
    low, high = record.interval
    return f"{number(record.value)} [{number(low)}, {number(high)}]"


def _wrap(sentence: str) -> str:
    return textwrap.fill(sentence, width=WIDTH, initial_indent="* ", subsequent_indent="  ")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows of text out as a table; a bar inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines) + "\n"


def metric_table(reports: Mapping[str, EvaluationReport], systems: Sequence[str]) -> str:
    """Lay the metrics of reports out in markdown: one per row, one column per system.

    Of the judged generators it says, in brackets, what real cells would score in 95 % of cases, and marks what is
    worse; of a report of an earlier version it gives bootstrap intervals. Reports come by the name of their data; the
    names are a column where there are several. A report without one of the systems leaves it empty.
    """
    several = len(reports) > 1
    header = [*(["data"] if several else []), "metric", "best", *systems]
    rows = []
    for name, report in reports.items():
        for row in report.rows:
            judged = report.systems.generators
            values = [
                _with_interval(row.values.get(system))
                if not report.n_permutations
                else _judged(row, system)
                if system in judged
                else _plain(row, system)
                for system in systems
            ]
            rows.append([*([name] if several else []), row.label, row.info.direction, *values])
    return markdown_table(header, rows)

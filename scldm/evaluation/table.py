"""The report as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from scldm.evaluation.findings import Finding
from scldm.evaluation.records import Record, Row
from scldm.evaluation.systems import Systems

__all__ = ["lay_out", "number"]

WIDTH = 110
_BEST = {"lower": "lower", "higher": "higher", "closest to ceiling": "ceiling"}
_MARKS = {"problem": "PROBLEM", "warning": "warning", "good": "good"}


def lay_out(
    summary: str, rows: Sequence[Row], systems: Systems, findings: Sequence[Finding], notes: Sequence[str]
) -> str:
    """Lay a report out: one line per metric, by group, then findings and notes; see `EvaluationReport`.

    Intervals are shown of the judged generators only. The summary is the first line.
    """
    header = ["metric", "best", *systems.names]
    lines = [header]
    for row in rows:
        cells = [_cell(row.values.get(name), name in systems.generators) for name in systems.names]
        lines.append([row.label, _BEST[row.info.direction], *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def render(line: Sequence[str]) -> str:
        numbers = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
        return "  ".join([line[0].ljust(widths[0]), line[1].ljust(widths[1]), *numbers]).rstrip()

    result = [summary, "", render(header), "  ".join("-" * width for width in widths)]
    for _, group in groupby(zip(rows, lines[1:], strict=True), key=lambda pair: pair[0].info.group):
        result += [*(render(line) for _, line in group), ""]
    result += [_wrap(f"{_MARKS[f.level]} ({f.system}): {f.sentence}") for f in findings]
    if findings and notes:
        result.append("")
    result += [_wrap(note) for note in notes]
    return "\n".join(result).rstrip()


def number(value: float | None) -> str:
    """Write a value with enough digits to compare it."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 1.995 else f"{value:.4f}" if abs(value) < 0.0995 else f"{value:.3f}"


def _cell(record: Record | None, with_interval: bool) -> str:
    """Write a value, and its interval if there is one to show."""
    if record is None:
        return number(None)
    if not with_interval or record.interval is None:
        return number(record.value)
    low, high = record.interval
    return f"{number(record.value)} [{number(low)}, {number(high)}]"


def _wrap(sentence: str) -> str:
    """Break a sentence into lines of a list entry."""
    return textwrap.fill(sentence, width=WIDTH, initial_indent="* ", subsequent_indent="  ")

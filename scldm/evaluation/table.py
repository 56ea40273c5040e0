"""The report as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from scldm.evaluation.findings import Finding
from scldm.evaluation.values import FigureValues, Value

__all__ = ["lay_out", "number"]

WIDTH = 110
_BEST = {"lower": "lower", "higher": "higher", "closest to ceiling": "ceiling"}
_MARKS = {"problem": "PROBLEM", "warning": "warning", "good": "good"}


def lay_out(
    summary: str,
    figures: Sequence[FigureValues],
    systems: Sequence[str],
    generators: Sequence[str],
    findings: Sequence[Finding],
    notes: Sequence[str],
) -> str:
    """Lay a report out: one row per figure, by group, then findings and notes.

    Parameters
    ----------
    summary
        First line.
    figures, findings, notes
        Of the report.
    systems
        Columns, in order.
    generators
        Those whose intervals are shown.
    """
    header = ["figure", "best", *systems]
    lines = [header]
    for row in figures:
        cells = [_cell(row.values.get(system), system in generators) for system in systems]
        lines.append([row.name, _BEST[row.direction], *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def render(line: Sequence[str]) -> str:
        numbers = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
        return "  ".join([line[0].ljust(widths[0]), line[1].ljust(widths[1]), *numbers]).rstrip()

    result = [summary, "", render(header), "  ".join("-" * width for width in widths)]
    groups = [row.group for row in figures]
    for _, rows in groupby(zip(groups, lines[1:], strict=True), key=lambda pair: pair[0]):
        result += [*(render(line) for _, line in rows), ""]
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


def _cell(value: Value | None, with_interval: bool) -> str:
    """Write a value, and its interval if there is one to show."""
    if value is None or not with_interval or value.low is None:
        return number(None if value is None else value.value)
    return f"{number(value.value)} [{number(value.low)}, {number(value.high)}]"


def _wrap(sentence: str) -> str:
    """Break a sentence into lines of a list entry."""
    return textwrap.fill(sentence, width=WIDTH, initial_indent="* ", subsequent_indent="  ")

"""Label fidelity, label by label: how often cells are recognised as what they are labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scldm.evaluation.labels import LabelFidelity
from scldm.evaluation.page.numbers import NOTHING, number
from scldm.evaluation.records import Value

__all__ = ["MAX_ROWS", "Bar", "GeneratedLabel", "LabelRow", "LabelTable", "Share", "label_tables"]

# Combinations of several conditions can be very many; the most frequent are enough to see how it goes.
MAX_ROWS = 60
# A bar as long as half its cell is a difference of this much.
_FULL_BAR = 0.3
# Differences from real cells above these are coloured: those that a reader should look at, and those that are grave.
NOTABLE, GRAVE = 0.05, 0.10
_LEVELS = (("small", "small"), ("notable", "more than 5 points"), ("grave", "more than 10 points"))


@dataclass(frozen=True)
class Share:
    """A share of cells as a percentage, with its interval."""

    text: str
    interval: str | None = None


@dataclass(frozen=True)
class Bar:
    """A difference in percentage points, to the left (less often) or right (more often) of the middle of a track."""

    level: str
    meaning: str
    left: float
    width: float
    points: str


@dataclass(frozen=True)
class GeneratedLabel:
    """One label among the cells of one generator."""

    n_cells: int
    missing: bool
    recognised: Share
    bar: Bar | None
    depth_ratio: str


@dataclass(frozen=True)
class LabelRow:
    """One label among held-out real cells, and among those of every generator."""

    label: str
    rare: bool
    n_real: int
    recognised: Share
    generated: tuple[GeneratedLabel, ...]


@dataclass(frozen=True)
class LabelTable:
    """The labels of one condition, the most frequent first, and how many are not shown."""

    condition: str
    rows: tuple[LabelRow, ...]
    n_hidden: int


def label_tables(labels: Sequence[LabelFidelity], generators: Sequence[str]) -> list[LabelTable]:
    """Lay out one table per condition.

    Parameters
    ----------
    labels
        From the report.
    generators
        Whose agreement to show beside that of real cells.
    """
    tables = []
    for condition in dict.fromkeys(row.condition for row in labels):
        rows = sorted((row for row in labels if row.condition == condition), key=lambda row: (-row.n_real, row.label))
        shown = tuple(_row(row, generators) for row in rows[:MAX_ROWS])
        tables.append(LabelTable(condition, shown, len(rows) - len(shown)))
    return tables


def _row(row: LabelFidelity, generators: Sequence[str]) -> LabelRow:
    """Lay out one label."""
    real = row.agreement.get("real")
    generated = []
    for name in generators:
        n_cells, own = row.n_generated.get(name, 0), row.agreement.get(name)
        missing = n_cells == 0 and row.n_real > 0
        ratio = number(row.depth_ratio.get(name))
        generated.append(GeneratedLabel(n_cells, missing, _share(own), _bar(real, own), ratio))
    return LabelRow(row.label, row.rare, row.n_real, _share(real), tuple(generated))


def _share(value: Value | None) -> Share:
    """Write a share; the ends of an interval, laid round the value, may leave what a share can be."""
    if value is None:
        return Share(NOTHING)
    if value.low is None or value.high is None:
        return Share(f"{value.value:.0%}")
    return Share(f"{value.value:.0%}", " … ".join(f"{min(max(end, 0.0), 1.0):.0%}" for end in (value.low, value.high)))


def _bar(real: Value | None, own: Value | None) -> Bar | None:
    """Draw the difference from real cells, in grey if the intervals, as independent errors, explain it."""
    if real is None or own is None:
        return None
    difference = own.value - real.value
    known = [(value.low, value.high) for value in (real, own)]
    chance = math.hypot(*((high - low) / 2 for low, high in known if low is not None and high is not None))
    level, meaning = _LEVELS[sum(abs(difference) > limit for limit in (NOTABLE, GRAVE))]
    if abs(difference) <= chance:
        level, meaning = "unsure", "within what the intervals explain"
    length = min(abs(difference) / _FULL_BAR, 1.0) * 50
    points = f"{difference * 100:+.0f}".replace("-", "−").replace("+0", "0").replace("−0", "0")  # noqa: RUF001
    return Bar(level, meaning, 50 - length if difference < 0 else 50.0, length, points)

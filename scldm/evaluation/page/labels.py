"""Label fidelity, label by label: how often cells are recognised as what they are labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scldm.evaluation.labels import LabelFidelity
from scldm.evaluation.null import LEVEL

__all__ = ["MAX_ROWS", "Bar", "bar_of", "label_tables"]

# Combinations of several conditions can be very many; the most frequent are enough to see how it goes.
MAX_ROWS = 60
# A bar as long as half its cell is a difference of this much.
_FULL_BAR = 0.3
# Differences from real cells above these are coloured: those that a reader should look at, and those that are grave.
NOTABLE, GRAVE = 0.05, 0.10
_LEVELS = (("small", "small"), ("notable", "more than 5 points"), ("grave", "more than 10 points"))


@dataclass(frozen=True)
class Bar:
    """A difference, from the middle of its track to the left (less often) or right (more often), in per cent of it."""

    level: str
    meaning: str
    left: float
    width: float
    points: str


def label_tables(labels: Sequence[LabelFidelity]) -> dict[str, list[LabelFidelity]]:
    """Sort the labels of a report by condition, the most frequent first."""
    tables: dict[str, list[LabelFidelity]] = {}
    for row in sorted(labels, key=lambda row: (-row.n_real, row.label)):
        tables.setdefault(row.condition, []).append(row)
    return {condition: tables[condition] for condition in dict.fromkeys(row.condition for row in labels)}


def bar_of(row: LabelFidelity, generator: str) -> Bar | None:
    """Draw the difference from real cells, in grey if chance explains it (in 5 % of the labels of real cells)."""
    real, own = row.agreement.get("real"), row.agreement.get(generator)
    p_value = row.p_value(generator)
    if real is None or own is None or p_value is None:
        return None
    difference = own.value - real.value
    level, meaning = _LEVELS[sum(abs(difference) > limit for limit in (NOTABLE, GRAVE))]
    if p_value > LEVEL:
        level, meaning = "unsure", "within what chance explains"
    length = min(abs(difference) / _FULL_BAR, 1.0) * 50
    points = f"{difference * 100:+.0f}".replace("-", "−").replace("+0", "0").replace("−0", "0")  # noqa: RUF001
    return Bar(level, meaning, 50 - length if difference < 0 else 50.0, length, points)

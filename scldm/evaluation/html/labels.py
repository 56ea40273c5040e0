"""Label fidelity, label by label: how often cells are recognised as what they are labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scldm.evaluation.html.tags import NOTHING, Html, element, join, number
from scldm.evaluation.pictures.scene import display_name
from scldm.evaluation.values import Value

if TYPE_CHECKING:
    from scldm.evaluation.labels import LabelFidelity

__all__ = ["MAX_ROWS", "labels_table"]

# Combinations of several conditions can be very many; the most frequent are enough to see how it goes.
MAX_ROWS = 60
# A bar as long as half its cell is a difference of this much.
_FULL_BAR = 0.3
# Differences from real cells above these are coloured: those that a reader should look at, and those that are grave.
NOTABLE, GRAVE = 0.05, 0.10
_LEVELS = (("small", "small"), ("notable", "more than 5 points"), ("grave", "more than 10 points"))


def labels_table(labels: Sequence[LabelFidelity], generators: Sequence[str]) -> Html:
    """Write one table per condition, the most frequent labels first.

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
        body = [_row(row, generators) for row in rows[:MAX_ROWS]]
        title = element("h3", condition)
        table = element("table", element("thead", *_head(generators)), element("tbody", *body), class_="labels")
        parts = [title, element("div", table, class_="wide")]
        if len(rows) > MAX_ROWS:
            hidden = f"{len(rows) - MAX_ROWS} rarer ones are in the JSON report only."
            parts.append(element("p", hidden, class_="caption"))
        tables.append(join(*parts))
    return join(*tables)


def _head(generators: Sequence[str]) -> list[Html]:
    """Write the head: a first row that names the generators, and one that names the columns."""
    above = [element("th"), element("th", "held-out real cells", colspan="2", scope="colgroup", class_="value")]
    below = [
        element("th", "label", scope="col", class_="name"),
        element("th", "cells", scope="col", class_="value"),
        element("th", "recognised", scope="col", class_="value"),
    ]
    for name in generators:
        above.append(element("th", display_name(name), colspan="4", scope="colgroup", class_="side"))
        below += [
            element("th", "cells", scope="col", class_="value side"),
            element("th", "recognised", scope="col", class_="value"),
            element("th", "difference from real cells", scope="col", class_="bar"),
            element(
                "th", "depth ratio", scope="col", class_="value", title="median UMI counts over those of real cells"
            ),
        ]
    return [element("tr", *above), element("tr", *below)]


def _row(row: LabelFidelity, generators: Sequence[str]) -> Html:
    """Write one label."""
    rare = element("span", "rare", class_="badge", title="fewer than 20 held-out cells: agreement is uncertain")
    name = join(row.label, " ", rare) if row.rare else row.label
    real = row.agreement.get("real")
    cells = [
        element("th", name, scope="row", class_="name"),
        element("td", f"{row.n_real:,}", class_="value"),
        _agreement(real),
    ]
    for system in generators:
        n_cells = row.n_generated.get(system, 0)
        own = row.agreement.get(system)
        difference = None if real is None or own is None else own.value - real.value
        ratio = row.depth_ratio.get(system)
        missing = n_cells == 0 and row.n_real > 0
        cells += [
            element("td", f"{n_cells:,}", class_="value side behind" if missing else "value side"),
            _agreement(own),
            element("td", _bar(difference, _uncertainty(real, own)), class_="bar"),
            element("td", number(ratio), class_="value"),
        ]
    return element("tr", *cells, class_="rare" if row.rare else None)


def _agreement(value: Value | None) -> Html:
    """Write a share of cells as a percentage with its interval."""
    if value is None:
        return element("td", NOTHING, class_="value")
    parts: list[str] = [f"{value.value:.0%}"]
    if value.low is not None and value.high is not None:
        parts.append(element("span", f"{_share(value.low)} … {_share(value.high)}", class_="interval"))
    return element("td", *parts, class_="value")


def _share(end: float) -> str:
    """Write an end of an interval of a share; laid round the value, it may leave what a share can be."""
    return f"{min(max(end, 0.0), 1.0):.0%}"


def _uncertainty(*values: Value | None) -> float:
    """Add half the widths of the intervals of independent values in quadrature."""
    known = [value for value in values if value is not None and value.low is not None and value.high is not None]
    return math.hypot(*((value.high - value.low) / 2 for value in known))  # type: ignore[operator]


def _bar(difference: float | None, uncertainty: float) -> Html:
    """Draw a difference as a bar to the left (recognised less often) or right (more often) of zero."""
    if difference is None:
        return Html("")
    length = min(abs(difference) / _FULL_BAR, 1.0) * 50
    if abs(difference) <= uncertainty:
        level, meaning = "unsure", "within what the intervals explain"
    else:
        level, meaning = _LEVELS[sum(abs(difference) > limit for limit in (NOTABLE, GRAVE))]
    left = 50 - length if difference < 0 else 50.0
    bar = element("i", class_=level, title=meaning, style=f"left:{left:.1f}%;width:{length:.1f}%")
    points = f"{difference * 100:+.0f}".replace("-", "−").replace("+0", "0").replace("−0", "0")  # noqa: RUF001
    return join(element("span", bar, class_="track"), element("span", points, class_="points"))

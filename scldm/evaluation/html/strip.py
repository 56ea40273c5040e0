"""One figure of merit on one line: the ceiling's interval, generators, baselines and the memoriser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scldm.evaluation.html.tags import Html, element, number
from scldm.evaluation.pictures.scene import display_name
from scldm.evaluation.values import Value

__all__ = ["draw_strip"]

WIDTH, HEIGHT, MARGIN = 160.0, 26.0, 8.0


def draw_strip(
    values: Mapping[str, Value | None], generators: Sequence[str], baselines: Sequence[str], colours: Mapping[str, str]
) -> Html:
    """Draw the values of all systems on one linear axis, as inline SVG without text.

    The ceiling is a band as wide as its interval, a generator a disk with its interval, a baseline a hollow diamond and
    the memoriser a cross.
    """
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value.value)}
    ends = [end for value in known.values() for end in (value.low, value.value, value.high) if end is not None]
    if not ends:
        return Html("")
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (value - low) / span if high > low else WIDTH / 2

    marks = [_line(MARGIN, WIDTH - MARGIN, HEIGHT / 2, "#d5d9de", 1.0)]
    if (ceiling := known.get("ceiling")) is not None:
        left, right = (x(v) for v in _interval(ceiling))
        width = max(right - left, 3.0)
        middle = (left + right) / 2
        marks.append(
            element(
                "rect",
                x=_px(middle - width / 2),
                y="2",
                width=_px(width),
                height=_px(HEIGHT - 4),
                fill="#9fd3ae",
                rx="2",
            )
        )
    for name in baselines:
        if name in known:
            centre = x(known[name].value)
            points = f"{_px(centre - 5)},13 {_px(centre)},8 {_px(centre + 5)},13 {_px(centre)},18"
            marks.append(element("polygon", points=points, fill="#fff", stroke=colours[name], stroke_width="1.6"))
    if (memoriser := known.get("memoriser")) is not None:
        centre = x(memoriser.value)
        path = f"M{_px(centre - 4)} 9l8 8m0 -8l-8 8"
        marks.append(element("path", d=path, stroke=colours["memoriser"], stroke_width="1.8", fill="none"))
    for name in reversed(generators):
        if name in known:
            left, right = (x(v) for v in _interval(known[name]))
            marks.append(_line(left, right, HEIGHT / 2, colours[name], 2.2))
            centre = x(known[name].value)
            marks.append(element("circle", cx=_px(centre), cy="13", r="5", fill=colours[name], stroke="#fff"))
    text = ", ".join(f"{display_name(name)} {number(value.value)}" for name, value in known.items())
    return element(
        "svg",
        element("title", text),
        *marks,
        viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
        width=f"{WIDTH:.0f}",
        height=f"{HEIGHT:.0f}",
        role="img",
    )


def _interval(value: Value) -> tuple[float, float]:
    """Give the ends of the interval, or the value twice."""
    low = value.value if value.low is None else value.low
    return low, value.value if value.high is None else value.high


def _line(left: float, right: float, y: float, colour: str, width: float) -> Html:
    """Draw a horizontal line."""
    return element("line", x1=_px(left), x2=_px(right), y1=_px(y), y2=_px(y), stroke=colour, stroke_width=str(width))


def _px(value: float) -> str:
    """Write a coordinate to a tenth of a pixel."""
    return f"{value:.1f}"

"""What figures have in common: fonts, colours of labels, clouds of dots, histograms and legends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.drawn import DrawnCells, plain
from scldm.evaluation.systems import REFERENCE
from scldm.seeds import numpy_rng

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "DOTS",
    "FILLING",
    "OTHER_LABEL",
    "Placement",
    "draw_cells",
    "draw_histogram",
    "drawing_style",
    "label_colours",
    "label_legend",
    "name_rows",
    "new_figure",
    "shuffled",
]

DOTS: Any = {"linewidths": 0, "rasterized": True}
FILLING = "#c9c9c9"
OTHER_LABEL = "#8c8c8c"
_BACKGROUND = "#dddddd"
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the cells to draw lie in a plane, by system: which of them, in random order, and their positions."""

    chosen: Mapping[str, Int[np.ndarray, " _"]]
    positions: Mapping[str, Float[np.ndarray, "_ 2"]]
    axis_name: str


def shuffled(n_cells: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Choose cells to draw, in random order, so that none is always on top; the same ones every time."""
    return numpy_rng(0).permutation(n_cells)[:most]


def drawing_style() -> AbstractContextManager[None]:
    """Set fonts and axes for the duration of one figure."""
    from matplotlib import rc_context

    return rc_context(_STYLE)


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Make a figure of this size in inches, and set fonts and axes while it is drawn."""
    from matplotlib.figure import Figure

    with drawing_style():
        yield Figure(figsize=(width, height), layout="constrained")


def label_colours(cells: DrawnCells) -> dict[str, str]:
    """Give the most frequent labels a colour each, in alphabetical order; nothing when there are no labels."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    tab20 = colormaps["tab20"]
    # strong colours first, pale ones after; without the two greys, which are the background
    palette = [tab20(i) for i in range(0, 20, 2) if i != 14] + ["#0b2e6f"]
    palette += [tab20(i) for i in range(1, 20, 2) if i != 15]
    return {name: to_hex(colour) for name, colour in zip(cells.frequent_labels(), palette, strict=False)}


def draw_cells(
    ax: Axes, cells: DrawnCells, name: str, placement: Placement, colours: Mapping[str, str], size: float
) -> None:
    """Draw the cells of one system as dots of some size, with those of the reference in grey behind.

    Their colours are those of their labels, from `label_colours`; without any, that of their system.
    """
    if name != REFERENCE:
        x, y = placement.positions[REFERENCE].T
        ax.scatter(x, y, s=size, c=_BACKGROUND, **DOTS)
    dot_colours: Any = cells.colour(name)
    labels = cells.labels(name)
    if colours and labels is not None:
        dot_colours = [colours.get(label, OTHER_LABEL) for label in labels[placement.chosen[name]]]
    x, y = placement.positions[name].T
    ax.scatter(x, y, s=size, c=dot_colours, alpha=0.85, **DOTS)


def label_legend(where: Any, ax: Axes, cells: DrawnCells, colours: Mapping[str, str], **options: Any) -> None:
    """Name the labels and their colours, in the legend of a figure or panel; `ax` is any panel of the figure.

    Labels without a colour of their own are called "other".
    """
    entries = dict(colours)
    if cells.n_labels > len(colours):
        entries["other"] = OTHER_LABEL
    dots = [ax.scatter([], [], s=26, c=colour, linewidths=0) for colour in entries.values()]
    title = plain(str(cells.label))
    where.legend(dots, [plain(name) for name in entries], frameon=False, title=title, **options)


def draw_histogram(
    ax: Axes, cells: DrawnCells, name: str, values: np.ndarray, edges: np.ndarray, area: float, text: str
) -> None:
    """Draw the distribution of one system's cells, that of the reference filled; the sum over all bins is `area`."""
    style: Any = {"color": FILLING}
    if name != REFERENCE:
        style = {"histtype": "step", "color": cells.colour(name), "linewidth": 1.7}
    ax.hist(values, edges.tolist(), weights=np.full(len(values), area / len(values)), label=text, **style)


def name_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Write labels beside the rows 0, 1, ... of a panel, from top to bottom."""
    ax.set_yticks(range(len(labels)), [plain(label) for label in labels], fontsize=8)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)

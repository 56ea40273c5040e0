"""Sequencing depth: over all cells and label by label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scldm.evaluation.cells import Cells
from scldm.evaluation.drawn import DrawnCells, plain
from scldm.evaluation.plots.style import FILLING, draw_histogram, name_rows, new_figure
from scldm.evaluation.systems import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_depth_histogram", "draw_depths", "genes_per_cell"]


def draw_depths(cells: DrawnCells) -> Figure:
    """Draw the distributions of UMI counts and of detected genes per cell, and of UMI counts in every label."""
    labels = cells.frequent_labels()
    height = max(3.5, 0.9 + 0.15 * len(cells.real_and_generated) * len(labels))
    with new_figure(11.6, height) as figure:
        panels = figure.subplots(1, 3 if labels else 2, width_ratios=[1, 1, 1.25] if labels else [1, 1])
        draw_depth_histogram(panels[0], cells)
        _draw_histograms(panels[1], cells, {n: genes_per_cell(cells.sides[n].cells) for n in cells.real_and_generated})
        panels[1].set(title="Genes detected", xlabel="genes with a count, per cell", ylabel="cells")
        if labels:
            _draw_boxes(panels[2], cells, labels)
    return figure


def genes_per_cell(cells: Cells) -> Float[np.ndarray, " cells"]:
    """Count the genes with a count in every cell."""
    return np.bincount(cells.counts.nonzero()[0], minlength=len(cells)).astype(np.float64)


def draw_depth_histogram(ax: Axes, cells: DrawnCells) -> None:
    """Draw the distribution of sequencing depths of real and generated cells."""
    _draw_histograms(ax, cells, {name: cells.sides[name].cells.library_size for name in cells.real_and_generated})
    ax.set(title="Sequencing depth", xlabel="UMI counts per cell", ylabel="cells")


def _draw_histograms(ax: Axes, cells: DrawnCells, values: dict[str, np.ndarray]) -> None:
    """Draw distributions over cells on a logarithmic axis."""
    values = {name: np.maximum(of_system, 1.0) for name, of_system in values.items()}
    together = np.concatenate(list(values.values()))
    n_cells = float(len(values[REFERENCE]))
    n_bins = int(np.clip(1.3 * np.sqrt(n_cells), 8, 40))
    edges = np.geomspace(together.min() * 0.999, together.max() * 1.001, n_bins + 1)
    for name, of_system in values.items():
        text = f"{cells.title(name)} (median {np.median(of_system):,.0f})"
        draw_histogram(ax, cells, name, of_system, edges, n_cells, text)
    _log_axis(ax)
    ax.set_ylim(top=ax.get_ylim()[1] * (1.15 + 0.08 * len(values)))
    ax.legend(loc="upper left", frameon=False, fontsize=8)


def _draw_boxes(ax: Axes, cells: DrawnCells, labels: list[str]) -> None:
    """Draw the depths of every label as boxes (quartiles; whiskers from 5 to 95 %), systems below each other."""
    names = [name for name in cells.real_and_generated if cells.labels(name) is not None]
    step = 0.8 / len(names)
    for i, name in enumerate(names):
        own, depths = cells.labels(name), np.maximum(cells.sides[name].cells.library_size, 1.0)
        groups = [depths[own == label] for label in labels]
        rows = [row for row, group in enumerate(groups) if len(group)]
        if not rows:
            continue  # no cell has a label that is drawn
        colour = cells.colour(name)
        ax.boxplot(
            [groups[row] for row in rows],
            positions=[row + (i - (len(names) - 1) / 2) * step for row in rows],
            widths=step * 0.75,
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": FILLING if name == REFERENCE else colour, "alpha": 0.75, "linewidth": 0},
            medianprops={"color": "black", "linewidth": 1.2},
            whiskerprops={"color": colour, "linewidth": 0.9},
            capprops={"linewidth": 0},
        )
    name_rows(ax, labels)  # boxplot has named the positions of the last system
    ax.set(title=f"Depth by {plain(str(cells.label))}", xlabel="UMI counts per cell")
    _log_axis(ax)


def _log_axis(ax: Axes) -> None:
    """Make the axis logarithmic, with a few whole numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ratio = high / low
    # LogLocator writes too many numbers where less than a decade is shown
    ax.xaxis.set_major_locator(MaxNLocator(5) if ratio < 8 else LogLocator(subs=(1, 2, 5) if ratio < 50 else (1,)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    if ratio < 50:
        ax.xaxis.set_minor_locator(NullLocator())

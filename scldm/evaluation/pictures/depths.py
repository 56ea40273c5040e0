"""Sequencing depth: over all cells and label by label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scldm.evaluation.cells import Cells
from scldm.evaluation.pictures.scene import Scene, drawing_style, picture_name, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["detected_genes", "draw_depth_histogram", "draw_depths"]

_FILLING = "#c9c9c9"


def draw_depths(scene: Scene) -> Figure:
    """Draw the distributions of UMI counts and of detected genes per cell, and of UMI counts in every label."""
    from matplotlib.figure import Figure

    labels = scene.frequent_labels()
    with drawing_style():
        height = max(3.5, 0.9 + 0.15 * (1 + len(scene.generators)) * len(labels))
        canvas = Figure(figsize=(11.6, height), layout="constrained")
        panels = canvas.subplots(1, 3 if labels else 2, width_ratios=[1, 1, 1.25] if labels else [1, 1])
        draw_depth_histogram(panels[0], scene)
        detected = {name: detected_genes(scene.sides[name].cells) for name in ("reference", *scene.generators)}
        _draw_histogram(panels[1], scene, detected)
        panels[1].set(title="Genes detected", xlabel="genes with a count, per cell", ylabel="cells")
        if labels:
            _draw_boxes(panels[2], scene, labels)
    return canvas


def detected_genes(cells: Cells) -> np.ndarray:
    """Count the genes with a count in every cell."""
    return np.bincount((cells.counts.nonzero())[0], minlength=len(cells)).astype(np.float64)


def draw_depth_histogram(ax: Axes, scene: Scene) -> None:
    """Draw the distribution of sequencing depths of real and generated cells."""
    depths = {name: scene.sides[name].cells.library_size for name in ("reference", *scene.generators)}
    _draw_histogram(ax, scene, depths)
    ax.set(title="Sequencing depth", xlabel="UMI counts per cell", ylabel="cells")


def _draw_histogram(ax: Axes, scene: Scene, values: dict[str, np.ndarray]) -> None:
    """Draw a distribution over cells on a logarithmic axis, the reference filled."""
    values = {name: np.maximum(of_system, 1.0) for name, of_system in values.items()}
    together = np.concatenate(list(values.values()))
    n_bins = int(np.clip(1.3 * np.sqrt(len(values["reference"])), 8, 40))
    edges = np.geomspace(together.min() * 0.999, together.max() * 1.001, n_bins + 1).tolist()
    for name, of_system in values.items():
        text = f"{picture_name(name)} (median {np.median(of_system):,.0f})"
        if name == "reference":
            ax.hist(of_system, edges, color=_FILLING, label=text)
        else:
            # equal areas where a system has another number of cells
            weights = np.full(len(of_system), len(values["reference"]) / len(of_system))
            colour = scene.colours[name]
            ax.hist(of_system, edges, weights=weights, histtype="step", color=colour, linewidth=1.7, label=text)
    _log_axis(ax)
    ax.set_ylim(top=ax.get_ylim()[1] * (1.15 + 0.08 * len(values)))
    ax.legend(loc="upper left", frameon=False, fontsize=8)


def _draw_boxes(ax: Axes, scene: Scene, labels: list[str]) -> None:
    """Draw the depths of every label as boxes (quartiles; whiskers from 5 to 95 %), systems below each other."""
    names = [name for name in ("reference", *scene.generators) if scene.labels(name) is not None]
    step = 0.8 / len(names)
    for i, name in enumerate(names):
        own, depths = scene.labels(name), np.maximum(scene.sides[name].cells.library_size, 1.0)
        groups = [depths[own == label] for label in labels]
        rows = [row for row, group in enumerate(groups) if len(group)]
        if not rows:
            continue  # no cell has a label that is drawn
        colour = scene.colours[name]
        ax.boxplot(
            [groups[row] for row in rows],
            positions=[row + (i - (len(names) - 1) / 2) * step for row in rows],
            widths=step * 0.75,
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": _FILLING if name == "reference" else colour, "alpha": 0.75, "linewidth": 0},
            medianprops={"color": "black", "linewidth": 1.2},
            whiskerprops={"color": colour, "linewidth": 0.9},
            capprops={"linewidth": 0},
        )
    # boxplot names the positions of the last system
    ax.set_yticks(range(len(labels)), [plain(label) for label in labels], fontsize=8)
    ax.set(ylim=(len(labels) - 0.4, -0.6), title=f"Depth by {plain(str(scene.label))}", xlabel="UMI counts per cell")
    ax.tick_params(axis="y", length=0)
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

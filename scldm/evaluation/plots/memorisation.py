"""Distances to the nearest training cell: whether cells are new or copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scldm.evaluation.drawn import DrawnCells
from scldm.evaluation.metrics.memorisation import distance_to_training
from scldm.evaluation.plots.style import draw_histogram, name_rows, new_figure
from scldm.evaluation.systems import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_memorisation"]

_MIN_CELLS_PER_LABEL = 10

Distances = dict[str, Float[np.ndarray, " _"]]


def draw_memorisation(cells: DrawnCells) -> Figure | None:
    """Draw how far cells are from the nearest training cell.

    Left: the distribution for held-out real cells, every generator and the memoriser. Right: for every label, the
    median of generated cells over that of held-out real cells. None without training cells.
    """
    if cells.fitted.training is None:
        return None
    distances = {
        name: distance_to_training(cells.sides[name], cells.fitted.training)
        for name in (*cells.real_and_generated, *cells.systems.of_kind("memoriser"))
    }
    labels = _common_labels(cells)
    with new_figure(11.6, max(3.4, 1.2 + 0.19 * len(labels))) as figure:
        panels = figure.subplots(1, 2 if labels else 1, width_ratios=[1.5, 1] if labels else [1], squeeze=False)[0]
        _draw_distributions(panels[0], cells, distances)
        if labels:
            _draw_ratios(panels[1], cells, distances, labels)
    return figure


def _common_labels(cells: DrawnCells) -> list[str]:
    """List the labels with enough cells, real and of the first generator, to take a median of."""
    real, generated = cells.labels(REFERENCE), cells.labels(cells.systems.generators[0])
    if real is None or generated is None:
        return []
    return [
        label
        for label in cells.frequent_labels()
        if min((real == label).sum(), (generated == label).sum()) >= _MIN_CELLS_PER_LABEL
    ]


def _draw_distributions(ax: Axes, cells: DrawnCells, distances: Distances) -> None:
    """Draw histograms; a system of which most cells are copies is a bar at zero that is cut off."""
    copies = {name: float((values == 0).mean()) for name, values in distances.items()}
    new = [values for name, values in distances.items() if copies[name] < 0.5]
    spread = np.concatenate(new or list(distances.values()))
    n_bins = int(np.clip(1.3 * np.sqrt(len(distances[REFERENCE])), 10, 50))
    edges = np.linspace(0.0, float(np.quantile(spread, 0.995)) * 1.02 or 1.0, n_bins + 1)
    for name, values in distances.items():
        title = cells.title(name)
        if copies[name] >= 0.5:
            text = f"{title} ({copies[name]:.0%} are exact copies)"
            ax.axvline(0.0, color=cells.colour(name), linewidth=3, label=text)
        else:
            text = f"{title} (median {np.median(values):.2f})"
            draw_histogram(ax, cells, name, np.minimum(values, edges[-1]), edges, 1.0, text)
    ax.set(title="Distance to the nearest training cell", xlabel="distance (PCA space)", ylabel="share of cells")
    ax.set_xlim(left=-0.01 * edges[-1])
    ax.set_ylim(top=ax.get_ylim()[1] * (1.1 + 0.07 * len(distances)))
    ax.legend(loc="upper right", frameon=False, fontsize=8.5)


def _draw_ratios(ax: Axes, cells: DrawnCells, distances: Distances, labels: list[str]) -> None:
    """Draw the median distance of every label relative to that of held-out real cells."""
    real = cells.labels(REFERENCE)
    medians = [max(float(np.median(distances[REFERENCE][real == label])), 1e-12) for label in labels]
    ax.axvline(1.0, color=cells.colour(REFERENCE), linewidth=1)
    for name in cells.systems.generators:
        own = cells.labels(name)
        if own is None:
            continue
        groups = [distances[name][own == label] for label in labels]
        ratios = [np.median(g) / median if len(g) else np.nan for g, median in zip(groups, medians, strict=True)]
        ax.scatter(ratios, range(len(labels)), s=34, c=cells.colour(name), zorder=3, label=cells.title(name))
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.9), max(high, 1.1))
    name_rows(ax, labels)
    ax.set(title="By label, relative to held-out real cells", xlabel="median distance / that of held-out real cells")
    ax.grid(axis="y", color="#eeeeee", zorder=0)
    ax.set_axisbelow(True)

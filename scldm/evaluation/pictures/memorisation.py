"""Distances to the nearest training cell: whether cells are new or copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scldm.evaluation.neighbours import nearest
from scldm.evaluation.pictures.scene import Scene, drawing_style, picture_name, plain
from scldm.evaluation.registry import PRIMARY_SPACE, Side

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_memorisation"]

_FILLING = "#c9c9c9"
_MIN_CELLS_PER_LABEL = 10

Distances = dict[str, Float[np.ndarray, " _"]]


def draw_memorisation(scene: Scene, training: Side) -> Figure:
    """Draw how far cells are from the nearest training cell.

    Left: the distribution for held-out real cells, every generator and the memoriser. Right: for every label, the
    median of generated cells over that of held-out real cells.
    """
    from matplotlib.figure import Figure

    names = ["reference", *scene.generators, *(["memoriser"] if "memoriser" in scene.sides else [])]
    among = training.features[PRIMARY_SPACE]
    distances = {
        name: np.asarray(nearest(scene.sides[name].features[PRIMARY_SPACE], among).distances)[:, 0] for name in names
    }
    labels = _common_labels(scene)
    with drawing_style():
        canvas = Figure(figsize=(11.6, max(3.4, 1.2 + 0.19 * len(labels))), layout="constrained")
        panels = canvas.subplots(1, 2 if labels else 1, width_ratios=[1.5, 1] if labels else [1], squeeze=False)[0]
        _draw_distributions(panels[0], scene, distances)
        if labels:
            _draw_ratios(panels[1], scene, distances, labels)
    return canvas


def _common_labels(scene: Scene) -> list[str]:
    """Labels with enough cells among the reference and ours to take a median of."""
    real, ours = scene.labels("reference"), scene.labels(scene.generators[0])
    if real is None or ours is None:
        return []
    return [
        label
        for label in scene.frequent_labels()
        if min((real == label).sum(), (ours == label).sum()) >= _MIN_CELLS_PER_LABEL
    ]


def _draw_distributions(ax: Axes, scene: Scene, distances: Distances) -> None:
    """Draw histograms; a system of which most cells are copies is a bar at zero that is cut off."""
    copies = {name: float((values == 0).mean()) for name, values in distances.items()}
    new = [values for name, values in distances.items() if copies[name] < 0.5]
    spread = np.concatenate(new or list(distances.values()))
    n_bins = int(np.clip(1.3 * np.sqrt(len(distances["reference"])), 10, 50))
    edges = np.linspace(0.0, float(np.quantile(spread, 0.995)) * 1.02 or 1.0, n_bins + 1)
    for name, values in distances.items():
        text = f"{picture_name(name)} (median {np.median(values):.2f})"
        if copies[name] >= 0.5:
            text = f"{picture_name(name)} ({copies[name]:.0%} are exact copies)"
            ax.axvline(0.0, color=scene.colours[name], linewidth=3, label=text)
            continue
        inside = np.minimum(values, edges[-1])
        weights = np.full(len(values), 1 / len(values))
        if name == "reference":
            ax.hist(inside, edges.tolist(), weights=weights, color=_FILLING, label=text)
        else:
            colour = scene.colours[name]
            ax.hist(inside, edges.tolist(), weights=weights, histtype="step", color=colour, linewidth=1.7, label=text)
    ax.set(title="Distance to the nearest training cell", xlabel="distance (PCA space)", ylabel="share of cells")
    ax.set_xlim(left=-0.01 * edges[-1])
    ax.set_ylim(top=ax.get_ylim()[1] * (1.1 + 0.07 * len(distances)))
    ax.legend(loc="upper right", frameon=False, fontsize=8.5)


def _draw_ratios(ax: Axes, scene: Scene, distances: Distances, labels: list[str]) -> None:
    """Draw the median distance of every label relative to that of held-out real cells."""
    real = scene.labels("reference")
    ax.axvline(1.0, color=scene.colours["reference"], linewidth=1)
    for name in scene.generators:
        own = scene.labels(name)
        if own is None:
            continue
        ratios = [
            np.median(distances[name][own == label])
            / max(float(np.median(distances["reference"][real == label])), 1e-12)
            if (own == label).any()
            else np.nan
            for label in labels
        ]
        ax.scatter(ratios, range(len(labels)), s=34, c=scene.colours[name], zorder=3, label=picture_name(name))
    low, high = ax.get_xlim()
    ax.set_xlim(min(low, 0.9), max(high, 1.1))
    ax.set_yticks(range(len(labels)), [plain(label) for label in labels], fontsize=8)
    ax.set(ylim=(len(labels) - 0.4, -0.6), title="By label, relative to held-out real cells")
    ax.set_xlabel("median distance / that of held-out real cells")
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", color="#eeeeee", zorder=0)
    ax.set_axisbelow(True)

"""Everything at one glance, as one picture file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scldm.evaluation.pictures.depths import draw_depth_histogram
from scldm.evaluation.pictures.embedding import plane
from scldm.evaluation.pictures.genes import draw_gene_means, draw_zero_fractions
from scldm.evaluation.pictures.scene import (
    BACKGROUND,
    DOTS,
    OTHER_LABEL,
    Scene,
    drawing_style,
    label_colours,
    picture_name,
    plain,
    shuffled,
)
from scldm.evaluation.registry import PRIMARY_SPACE, Side

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

__all__ = ["draw"]

MAX_POINTS = 3000


def draw(sides: Mapping[str, Side], path: Path, *, label: str | None, title: str, ours: str = "generated") -> None:
    """Draw real beside generated cells.

    Above: both and a baseline on the two principal components of real and generated cells together, coloured by
    label, the real cells in grey behind. Below: means of all genes, zeros against abundance, and sequencing depth.

    Parameters
    ----------
    sides
        By system: ``reference``, the generator `ours`, and, where there are, ``ceiling`` and a baseline.
    path
        Where to write it; the file ending names the format.
    label
        Column of labels to colour by; None draws every system in its own colour.
    title
        Headline.
    ours
        Name of the generator to draw.
    """
    from matplotlib.figure import Figure

    scene = Scene.of(sides, (ours,), label)
    with drawing_style():
        canvas = Figure(figsize=(13.5, 8.2), layout="constrained")
        canvas.suptitle(plain(title), fontsize=12.5)
        parts: Any = canvas.subfigures(2, 1, height_ratios=[1.08, 1])
        above, below = parts
        _draw_cells(above, scene)
        means, zeros, depths = below.subplots(1, 3)
        draw_gene_means(means, scene)
        draw_zero_fractions(zeros, scene)
        draw_depth_histogram(depths, scene)
        canvas.savefig(path, dpi=150)


def _draw_cells(canvas: SubFigure, scene: Scene) -> None:
    """Draw cells on the first two principal components of reference and generated cells together."""
    systems = ["reference", scene.generators[0], *scene.baselines[:1]]
    features = {name: scene.sides[name].features[PRIMARY_SPACE] for name in systems}
    centre, directions = plane([features["reference"], features[scene.generators[0]]])
    colours = label_colours(scene)
    panels = np.ravel(canvas.subplots(1, len(systems), sharex=True, sharey=True))
    size = float(np.clip(4500 / len(features["reference"]), 2.5, 22))
    chosen = {name: shuffled(len(values), MAX_POINTS) for name, values in features.items()}
    flat = {name: (values[chosen[name]] - centre) @ directions.T for name, values in features.items()}
    for ax, name in zip(panels, systems, strict=True):
        if name != "reference":
            ax.scatter(*flat["reference"].T, s=size, c=BACKGROUND, **DOTS)
        point_colours: Any = scene.colours[name]
        labels = scene.labels(name)
        if colours and labels is not None:
            point_colours = [colours.get(value, OTHER_LABEL) for value in labels[chosen[name]]]
        ax.scatter(*flat[name].T, s=size, c=point_colours, alpha=0.85, **DOTS)
        baseline = "baseline: " if name in scene.baselines else ""
        ax.set(title=baseline + picture_name(name), xlabel="PC 1", xticks=[], yticks=[])
    panels[0].set_ylabel("PC 2")
    if colours:
        if scene.reference.cells.labels[scene.label].nunique() > len(colours):
            colours["other"] = OTHER_LABEL
        marks = [panels[0].scatter([], [], s=24, c=colour, linewidths=0) for colour in colours.values()]
        names = [plain(name) for name in colours]
        title = plain(str(scene.label))
        canvas.legend(marks, names, loc="outside right center", frameon=False, title=title, fontsize=8)

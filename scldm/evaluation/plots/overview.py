"""Everything at one glance, as one image file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scldm.errors import UserError
from scldm.evaluation.drawn import DrawnCells, plain
from scldm.evaluation.plots.depths import draw_depth_histogram
from scldm.evaluation.plots.embedding import plane
from scldm.evaluation.plots.genes import draw_gene_means, draw_zero_fractions
from scldm.evaluation.plots.style import (
    Placement,
    draw_cells,
    drawing_style,
    label_colours,
    label_legend,
    new_figure,
    shuffled,
)
from scldm.evaluation.records import PRIMARY_SPACE
from scldm.evaluation.systems import REFERENCE
from scldm.evaluation.table import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from scldm.evaluation.report import EvaluationReport

__all__ = ["draw_overview", "overview"]

MAX_POINTS = 3000
_IN_TITLE = {
    "frechet_distance": "Fréchet distance",
    "nearest_neighbour_accuracy": "1-NN accuracy",
    "wasserstein2": "W2",
    "gene_gene_correlation": "gene-gene correlation",
}


def draw_overview(report: EvaluationReport, path: str | Path) -> None:
    """Draw real cells beside those of the first generator, under a title with the most telling metrics.

    Parameters
    ----------
    report
        What `evaluate` returned.
    path
        Where to write it; the file ending names the format, such as ``.png``.

    Raises
    ------
    UserError
        If the report was read from a file, which does not hold the cells.
    """
    drawn = report.drawn
    if drawn is None:
        raise UserError("A report that was read from a file has no cells to draw; run evaluate again")
    systems = drawn.systems.restricted_to(set(drawn.systems.names) - set(drawn.systems.generators[1:]))
    with drawing_style():
        overview(replace(drawn, systems=systems), _title(report)).savefig(path, dpi=150)


def _title(report: EvaluationReport) -> str:
    """Name the generator, and give its values of some metrics, with those of the ceiling in brackets."""
    generator, known = report.systems.generators[0], {row.info.name for row in report.rows}
    systems = (generator, *report.systems.of_kind("ceiling"))
    values = {
        text: [number(report.value(name, system)) for system in systems]
        for name, text in _IN_TITLE.items()
        if name in known
    }
    parts = [f"{text} {own}" + "".join(f" ({ceiling})" for ceiling in rest) for text, (own, *rest) in values.items()]
    subject = "Generated" if generator == "generated" else generator
    brackets = " (in brackets: real against real)" if len(systems) > 1 else ""
    return f"{subject} against {report.n_cells} held-out real cells{brackets}\n{',  '.join(parts)}"


def overview(cells: DrawnCells, title: str) -> Figure:
    """Draw the cells of the reference, the first generator and the first baseline, and compare their genes and depths.

    Above: cells on the two principal components of real and generated cells together, coloured by label, the real
    cells in grey behind. Below: means of all genes, zeros against abundance, and sequencing depth.
    """
    with new_figure(13.5, 8.2) as figure:
        figure.suptitle(plain(title), fontsize=12.5)
        parts: Any = figure.subfigures(2, 1, height_ratios=[1.08, 1])
        above, below = parts
        _draw_plane(above, cells)
        means, zeros, depths = below.subplots(1, 3)
        draw_gene_means(means, cells)
        draw_zero_fractions(zeros, cells)
        draw_depth_histogram(depths, cells)
    return figure


def _draw_plane(figure: SubFigure, cells: DrawnCells) -> None:
    """Draw cells on the first two principal components of reference and generated cells together."""
    names = [*cells.real_and_generated[:2], *cells.systems.baselines[:1]]
    features = {name: cells.sides[name].features[PRIMARY_SPACE] for name in names}
    centre, axes = plane([features[name] for name in names[:2]])
    chosen = {name: shuffled(len(values), MAX_POINTS) for name, values in features.items()}
    positions = {name: (values[chosen[name]] - centre) @ axes.T for name, values in features.items()}
    placement = Placement(chosen, positions, "PC")
    colours = label_colours(cells)
    size = float(np.clip(4500 / len(features[REFERENCE]), 2.5, 22))
    panels = np.ravel(figure.subplots(1, len(names), sharex=True, sharey=True))
    for ax, name in zip(panels, names, strict=True):
        draw_cells(ax, cells, name, placement, colours, size)
        prefix = "baseline: " if name in cells.systems.baselines else ""
        ax.set(title=prefix + cells.title(name), xlabel="PC 1", xticks=[], yticks=[])
    panels[0].set_ylabel("PC 2")
    if colours:
        label_legend(figure, panels[0], cells, colours, loc="outside right center", fontsize=8)

"""The figures of the page, each with what to look for."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scldm.evaluation.plots.cells import PlottedCells
from scldm.evaluation.plots.correlations import draw_correlations
from scldm.evaluation.plots.depths import draw_depths
from scldm.evaluation.plots.embedding import Embedding, draw_embedding, place
from scldm.evaluation.plots.genes import draw_genes
from scldm.evaluation.plots.markers import draw_markers
from scldm.evaluation.plots.memorisation import draw_memorisation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scldm.evaluation.report import EvaluationReport

__all__ = ["FigureSection", "Image", "figure_sections"]

_DPI = 130
# Pixels of the page per inch of a figure: a little smaller than drawn, so that it stays sharp.
_PAGE_DPI = 104

# More conditions than this are in the tables only.
_MAX_CONDITIONS = 3


@dataclass(frozen=True)
class Image:
    """A PNG file in base 64, and its size on the page in pixels."""

    png: str
    width: int
    height: int


@dataclass(frozen=True)
class FigureSection:
    """One section: a caption, the images, and the names of genes that are too many to be in them."""

    anchor: str
    title: str
    caption: str
    images: tuple[Image, ...]
    genes: tuple[str, ...] = ()


def figure_sections(report: EvaluationReport, embedding: Embedding) -> list[FigureSection]:
    """Draw everything that the report has cells for: nothing, if it was read from a file."""
    drawn = report.drawn
    if drawn is None:
        return []
    cells, fitted = PlottedCells.of(drawn.sides, report.systems, drawn.label), drawn.fitted
    others = [name for name in report.conditions if _other(cells, name)]
    by_condition = [cells, *(replace(cells, label=name) for name in others)][:_MAX_CONDITIONS]
    sections = [_embedding(by_condition, embedding)]
    found = (draw_markers(one, fitted.fitting.cells) for one in by_condition)
    if markers := [figure for figure in found if figure is not None]:
        caption = (
            "The strongest markers of every label, in its frame (log fold change against all other cells, chosen from "
            "real cells that are not compared here). Size: share of cells with a count; colour: mean log1p CP10K; the "
            "same scales everywhere. Real and generated should look the same."
        )
        sections.append(_section("markers", "Marker genes", caption, markers))
    caption = (
        "Left: every dot is a gene; between the black lines lie 95 % of genes when real cells are compared with real "
        "cells. Middle: too many zeros for a given abundance means drop-outs that real cells do not have, too few "
        "means that cells are too alike. Right: how much more genes vary than counting noise explains."
    )
    sections.append(_section("genes", "Genes one by one", caption, [draw_genes(cells)]))
    if len(fitted.correlated_genes) > 1:
        figure, genes = draw_correlations(cells, fitted.correlated_genes)
        caption = (
            f"Correlations between {len(genes)} genes, in the order that clusters the held-out cells. Blocks are "
            "programmes of genes; r is how well all pairs of genes agree with the held-out cells."
        )
        caption += " Within labels, what merely differs between labels is taken out." if cells.label else ""
        sections.append(_section("correlations", "Genes together", caption, [figure], genes))
    caption = "How many molecules and genes a cell has, over all cells"
    caption += " and label by label (boxes: quartiles; whiskers: 5 to 95 %)." if cells.label else "."
    sections.append(_section("depth", "Sequencing depth", caption, [draw_depths(cells)]))
    if fitted.training is not None:
        caption = (
            "Held-out real cells show how near to a training cell a new cell of this tissue is. Generated cells that "
            "are much nearer are copies; much farther ones are not of this tissue."
        )
        figure = draw_memorisation(cells, fitted.training)
        sections.append(_section("memorisation", "New cells or copies?", caption, [figure]))
    return sections


def _other(cells: PlottedCells, condition: str) -> bool:
    """Whether cells can be coloured by this condition too."""
    labels = cells.reference.labels
    return condition != cells.label and condition in labels and labels[condition].nunique() > 1


def _embedding(by_condition: list[PlottedCells], method: Embedding) -> FigureSection:
    """Draw cells in one plane, once for every condition."""
    placement = place(by_condition[0], method)
    name = "UMAP" if placement.axis_name == "UMAP" else "The first two principal components"
    colours = "in the same colours and proportions, and " if by_condition[0].label else "and "
    caption = (
        f"{name} of real and generated cells together. Generated cells should lie where real cells (grey) lie, "
        f"{colours}leave no real population uncovered. A plane can mislead: the table above measures in all dimensions."
    )
    figures = [draw_embedding(one, placement, overlay=one is by_condition[0]) for one in by_condition]
    return _section("embedding", "Real and generated cells in one plane", caption, figures)


def _section(
    anchor: str, title: str, caption: str, figures: Iterable[Figure], genes: Iterable[str] = ()
) -> FigureSection:
    """Put a caption and its figures together."""
    return FigureSection(anchor, title, caption, tuple(_image(figure) for figure in figures), tuple(genes))


def _image(figure: Figure) -> Image:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # names in any script
        # the version of matplotlib would only make equal images differ
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    width, height = (round(inches * _PAGE_DPI) for inches in figure.get_size_inches())
    return Image(base64.b64encode(buffer.getvalue()).decode("ascii"), width, height)

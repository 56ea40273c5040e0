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
    """One section, with an image per condition; the template has a caption for every anchor.

    The caption depends on whether cells are told apart by a label and on the name of the embedding's axes. Genes are
    named if they are too many to be named in the image.
    """

    anchor: str
    title: str
    images: tuple[Image, ...]
    by_label: bool
    axis_name: str = ""
    genes: tuple[str, ...] = ()


def figure_sections(report: EvaluationReport, embedding: Embedding) -> list[FigureSection]:
    """Draw everything that the report has cells for: nothing, if it was read from a file."""
    if report.drawn is None:
        return []
    fitted = report.drawn.fitted
    cells = PlottedCells.of(report.drawn.sides, report.systems, report.drawn.label)
    others = [replace(cells, label=name) for name in report.conditions if _other(cells, name)]
    by_condition = [cells, *others][:_MAX_CONDITIONS]
    sections = []

    def add(anchor: str, title: str, *figures: Figure, axis_name: str = "", genes: Iterable[str] = ()) -> None:
        images = tuple(_image(figure) for figure in figures)
        sections.append(FigureSection(anchor, title, images, cells.label is not None, axis_name, tuple(genes)))

    placement = place(cells, embedding)
    planes = [draw_embedding(one, placement, overlay=one is cells) for one in by_condition]
    add("embedding", "Real and generated cells in one plane", *planes, axis_name=placement.axis_name)
    found = (draw_markers(one, fitted.fitting.cells) for one in by_condition)
    if markers := [figure for figure in found if figure is not None]:
        add("markers", "Marker genes", *markers)
    add("genes", "Genes one by one", draw_genes(cells))
    if len(fitted.correlated_genes) > 1:
        figure, genes = draw_correlations(cells, fitted.correlated_genes)
        add("correlations", "Genes together", figure, genes=genes)
    add("depth", "Sequencing depth", draw_depths(cells))
    if fitted.training is not None:
        add("memorisation", "New cells or copies?", draw_memorisation(cells, fitted.training))
    return sections


def _other(cells: PlottedCells, condition: str) -> bool:
    """Whether cells can be coloured by this condition too."""
    labels = cells.reference.labels
    return condition != cells.label and condition in labels and labels[condition].nunique() > 1


def _image(figure: Figure) -> Image:
    """Write a figure as PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # names in any script
        # the version of matplotlib would only make equal images differ
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    width, height = (round(inches * _PAGE_DPI) for inches in figure.get_size_inches())
    return Image(base64.b64encode(buffer.getvalue()).decode("ascii"), width, height)

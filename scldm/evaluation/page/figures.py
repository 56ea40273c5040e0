"""The figures of the page, each with what to look for."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scldm.evaluation.drawn import DrawnCells
from scldm.evaluation.plots.correlations import draw_correlations
from scldm.evaluation.plots.depths import draw_depths
from scldm.evaluation.plots.embedding import Embedding, draw_embedding, place
from scldm.evaluation.plots.genes import draw_genes
from scldm.evaluation.plots.markers import draw_markers
from scldm.evaluation.plots.memorisation import draw_memorisation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scldm.evaluation.report import EvaluationReport

__all__ = ["FIGURES", "Figures", "draw_figures"]

#: Titles of the sections, by anchor; the template has a caption for each.
FIGURES = {
    "embedding": "Real and generated cells in one plane",
    "markers": "Marker genes",
    "genes": "Genes one by one",
    "correlations": "Genes together",
    "depth": "Sequencing depth",
    "memorisation": "New cells or copies?",
}
_DPI = 130
# Pixels of the page per inch of a figure: a little smaller than drawn, so that it stays sharp.
_PAGE_DPI = 104
# More conditions than this are in the tables only.
_MAX_CONDITIONS = 3


@dataclass(frozen=True)
class Figures:
    """The images of one section, one per condition: PNG in base 64, width and height on the page in pixels.

    The caption depends on whether cells are told apart by a label and on the name of the embedding's axes. Genes are
    named if they are too many to be named in the image.
    """

    images: list[tuple[str, int, int]]
    by_label: bool
    axis_name: str = ""
    genes: tuple[str, ...] = ()


def draw_figures(report: EvaluationReport, embedding: Embedding) -> dict[str, Figures]:
    """Draw everything that the report has cells for, by anchor: nothing, if it was read from a file."""
    if report.drawn is None:
        return {}
    cells, correlated = report.drawn, report.drawn.fitted.correlated_genes
    others = [replace(cells, label=name) for name in report.conditions if _other(cells, name)]
    by_condition = [cells, *others][:_MAX_CONDITIONS]
    found: dict[str, Figures] = {}

    def add(anchor: str, *figures: Figure | None, axis_name: str = "", genes: Iterable[str] = ()) -> None:
        if images := [_image(figure) for figure in figures if figure is not None]:
            found[anchor] = Figures(images, cells.label is not None, axis_name, tuple(genes))

    placement = place(cells, embedding)
    planes = [draw_embedding(one, placement, overlay=one is cells) for one in by_condition]
    add("embedding", *planes, axis_name=placement.axis_name)
    add("markers", *(draw_markers(one) for one in by_condition))
    add("genes", draw_genes(cells))
    if len(correlated) > 1:
        figure, genes = draw_correlations(cells, correlated)
        add("correlations", figure, genes=genes)
    add("depth", draw_depths(cells))
    add("memorisation", draw_memorisation(cells))
    return found


def _other(cells: DrawnCells, condition: str) -> bool:
    """Whether cells can be coloured by this condition too."""
    labels = cells.reference.labels
    return condition != cells.label and condition in labels and labels[condition].nunique() > 1


def _image(figure: Figure) -> tuple[str, int, int]:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # names in any script
        # the version of matplotlib would only make equal images differ
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    width, height = (round(inches * _PAGE_DPI) for inches in figure.get_size_inches())
    return base64.b64encode(buffer.getvalue()).decode("ascii"), width, height

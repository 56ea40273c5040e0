"""The pictures of the page, each with what to look for."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from scldm.evaluation import pictures
from scldm.evaluation.html.tags import Html, element, join
from scldm.evaluation.pictures.embedding import Embedding
from scldm.evaluation.pictures.scene import Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scldm.evaluation.registry import Judge
    from scldm.evaluation.report import EvaluationReport

__all__ = ["gallery"]

_DPI = 130
# Pixels of the page per inch of a picture: a little smaller than drawn, so that it stays sharp.
_PAGE_DPI = 104

# More conditions than this are in the tables only.
_MAX_CONDITIONS = 3

Section = tuple[str, str, Html]


def gallery(report: EvaluationReport, embedding: Embedding) -> list[Section]:
    """Draw everything that the report has cells for.

    Returns
    -------
    Anchor, title and content of every picture's section; none for a report that was read from a file.
    """
    exhibits = report.exhibits
    if exhibits is None or "reference" not in exhibits.sides:
        return []
    scene = Scene.of(exhibits.sides, report.generators, exhibits.label)
    if not scene.generators:
        return []
    judge = exhibits.judge
    by_condition = [scene, *(replace(scene, label=name) for name in report.conditions if _other(scene, name))]
    by_condition = by_condition[:_MAX_CONDITIONS]
    sections = [_embedding(by_condition, embedding)]
    drawn = (pictures.draw_markers(one, judge.fitting.cells) for one in by_condition)
    if markers := [figure for figure in drawn if figure is not None]:
        caption = (
            "The strongest markers of every label, in its frame (log fold change against all other cells, chosen from "
            "real cells that are not compared here). Size: share of cells with a count; colour: mean log1p CP10K; the "
            "same scales everywhere. Real and generated should look the same."
        )
        sections.append(_section("markers", "Marker genes", caption, *markers))
    caption = (
        "Left: every dot is a gene; between the black lines lie 95 % of genes when real cells are compared with real "
        "cells. Middle: too many zeros for a given abundance means drop-outs that real cells do not have, too few "
        "means that cells are too alike. Right: how much more genes vary than counting noise explains."
    )
    sections.append(_section("genes", "Genes one by one", caption, pictures.draw_genes(scene)))
    if len(judge.correlated_genes) > 1:
        sections.append(_correlations(scene, judge))
    caption = "How many molecules and genes a cell has, over all cells"
    caption += " and label by label (boxes: quartiles; whiskers: 5 to 95 %)." if scene.label else "."
    sections.append(_section("depth", "Sequencing depth", caption, pictures.draw_depths(scene)))
    if judge.training is not None:
        caption = (
            "Held-out real cells show how near to a training cell a new cell of this tissue is. Generated cells that "
            "are much nearer are copies; much farther ones are not of this tissue."
        )
        figure = pictures.draw_memorisation(scene, judge.training)
        sections.append(_section("memorisation", "New cells or copies?", caption, figure))
    return sections


def _other(scene: Scene, condition: str) -> bool:
    """Whether cells can be coloured by this condition too."""
    labels = scene.reference.cells.labels
    return condition != scene.label and condition in labels and labels[condition].nunique() > 1


def _embedding(by_condition: list[Scene], method: Embedding) -> Section:
    """Draw cells in one plane, once for every condition."""
    scene = by_condition[0]
    placement = pictures.place(scene, method)
    name = "UMAP" if placement.axis_name == "UMAP" else "The first two principal components"
    colours = "in the same colours and proportions, and " if scene.label else "and "
    caption = (
        f"{name} of real and generated cells together. Generated cells should lie where real cells (grey) lie, "
        f"{colours}leave no real population uncovered. A plane can mislead: the table above measures in all dimensions."
    )
    figures = [pictures.draw_embedding(one, placement, overlay=one is scene) for one in by_condition]
    return _section("embedding", "Real and generated cells in one plane", caption, *figures)


def _correlations(scene: Scene, judge: Judge) -> Section:
    """Draw which genes go together, and list the genes, which are too many to name in the picture."""
    figure, genes = pictures.draw_correlations(scene, judge.correlated_genes)
    caption = (
        f"Correlations between {len(genes)} genes, in the order that clusters the held-out cells. Blocks are "
        "programmes of genes; r is how well all pairs of genes agree with the held-out cells."
    )
    caption += " Within labels, what merely differs between labels is taken out." if scene.label else ""
    name, title, content = _section("correlations", "Genes together", caption, figure)
    listed = element("details", element("summary", "The genes from top to bottom"), ", ".join(genes))
    return name, title, join(content, listed)


def _section(name: str, title: str, caption: str, *figures: Figure) -> Section:
    """Put a caption and its pictures together."""
    images = [_image(figure, f"{title}. {caption}") for figure in figures]
    return name, title, join(element("p", caption, class_="caption"), *images)


def _image(figure: Figure, text: str) -> Html:
    """Write a picture into the page itself."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # names in any script
        # the version of matplotlib would only make equal pictures differ
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = (f"{inches * _PAGE_DPI:.0f}" for inches in figure.get_size_inches())
    return element("figure", element("img", src=source, alt=text, width=width, height=height))

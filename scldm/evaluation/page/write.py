"""Write the page: one file without any outside resource."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from scldm.evaluation.page.context import page_context
from scldm.evaluation.page.numbers import number
from scldm.evaluation.plots.embedding import Embedding
from scldm.files import write_text

if TYPE_CHECKING:
    from scldm.evaluation.report import EvaluationReport

__all__ = ["environment", "write_page"]


def write_page(report: EvaluationReport, path: str | Path, embedding: Embedding = "umap") -> None:
    """Write a report as one self-contained web page, which needs neither a network nor scripts.

    The same report always gives the same file. A report that was read from a file has no cells: its page has the
    numbers and no figures.

    Parameters
    ----------
    report
        What `evaluate` returned.
    path
        Where to write it, such as ``report.html``; the file appears whole or not at all.
    embedding
        How to draw cells in one plane: ``umap`` (10-20 s) or ``pca`` (at once).
    """
    page = environment().get_template("page.html.j2").render(page_context(report, embedding))
    write_text(path, page + "\n")


def environment() -> Environment:
    """Load the templates: every text is escaped, and a name that is missing is an error."""
    found = Environment(
        loader=PackageLoader("scldm.evaluation.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "px": "{:.1f}".format, "thousands": "{:,}".format, "percent": "{:.0%}".format}
    return found

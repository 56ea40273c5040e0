"""The page: header, findings, table, pictures and small print in one file without any outside resource."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING

from scldm.evaluation.html.gallery import gallery
from scldm.evaluation.html.labels import labels_table
from scldm.evaluation.html.table import STANDINGS, Columns, count_standings, figures_table
from scldm.evaluation.html.tags import NOTHING, Html, element, join
from scldm.evaluation.pictures.embedding import Embedding
from scldm.evaluation.pictures.scene import display_name

if TYPE_CHECKING:
    from scldm.evaluation.report import EvaluationReport

__all__ = ["write_html"]

_LIBRARIES = ("scldm", "numpy", "scipy", "anndata", "scanpy", "scikit-learn", "POT", "matplotlib")
_LEVELS = {"problem": "Problem", "warning": "Look at this", "good": "Good"}


def write_html(report: EvaluationReport, path: str | Path, embedding: Embedding = "umap") -> None:
    """Write a report as one self-contained web page, which needs neither a network nor scripts.

    The same report always gives the same file. A report that was read from a file has no cells: its page has the
    numbers and no pictures.

    Parameters
    ----------
    report
        What `evaluate` returned.
    path
        Where to write it, such as ``report.html``; the file appears whole or not at all.
    embedding
        How to draw cells in one plane: ``umap`` (10-20 s) or ``pca`` (at once).
    """
    columns = Columns.of(tuple(report.systems), report.generators)
    sections = [
        ("findings", "Findings", _findings(report, columns)),
        ("figures", "Figures of merit", _figures(report, columns)),
        *gallery(report, embedding),
        ("labels", "Label by label", _labels(report)),
        ("notes", "Notes and definitions", _notes(report)),
    ]
    sections = [section for section in sections if section[2]]
    links = [element("a", title, href=f"#{name}") for name, title, _ in sections]
    title = _title(report)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html((files(__package__) / "style.css").read_text(encoding="utf-8"))),
    )
    body = [element("section", element("h2", title), content, id=name) for name, title, content in sections]
    main = element("main", _header(report, columns, title), element("nav", *links), *body, _footer())
    path = Path(path)
    unfinished = path.with_name(path.name + ".unfinished")
    page = "<!DOCTYPE html>\n" + element("html", head, element("body", main), lang="en") + "\n"
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)


def _title(report: EvaluationReport) -> str:
    """Say what was judged."""
    if report.generators == ("generated",):
        return "How real are the generated cells?"
    *others, last = (display_name(name) for name in report.generators)
    return f"How real are cells from {', '.join(others)}{' and ' if others else ''}{last}?"


def _header(report: EvaluationReport, columns: Columns, title: str) -> Html:
    """Say what was compared and how to read the page, and sum up."""
    spaces = element("dd", ", ".join(report.spaces) or NOTHING)
    genes = report.genes
    splits = "one random split" if report.n_splits == 1 else f"mean of {report.n_splits} random splits"
    facts = [
        ("cells on either side", f"{report.n_cells:,}", f"per comparison; {splits}"),
        ("genes", f"{genes.n_judged:,}", f"of {genes.n_shared:,} that all files share"),
        ("conditions", ", ".join(report.conditions) or "none", "columns of labels"),
        ("intervals", "95 %", f"{report.n_resamples} bootstrap resamples"),
        ("profile", report.profile, f"seed {report.seed}"),
    ]
    boxes = [
        element("div", element("dt", name), element("dd", value, element("small", detail)))
        for name, value, detail in facts
    ]
    boxes.insert(2, element("div", element("dt", "spaces for distances"), spaces))
    scores = []
    for name in columns.generators:
        counts = count_standings(report.figures, name, columns)
        chips = [
            element("span", element("span", mark, class_="mark"), f" {counts[where]} {meaning}", class_=f"chip {where}")
            for where, (mark, meaning) in STANDINGS.items()
        ]
        if sum(counts.values()):
            scores.append(element("div", element("strong", display_name(name)), *chips, class_="score"))
    how = ["Every figure of merit compares cells of one source with the same held-out real cells."]
    if columns.ceiling:
        how.append(
            "The ceiling is what real cells reach when they are compared with other real cells in the same way: no "
            "generator can honestly do better, and a good one is at the ceiling everywhere."
        )
    if columns.baselines:
        how.append("The baselines are what simple statistics reach.")
    if columns.memoriser:
        how.append(
            "The memoriser is the training cells themselves, without one new cell; in spaces that were fitted on them "
            "they lie unlike other real cells, so even perfect copies are seen."
        )
    how.append("Small grey numbers are 95 % intervals; what a figure means is below its name.")
    return element(
        "header",
        element("h1", title),
        element("dl", *boxes, class_="facts"),
        element("p", " ".join(how), class_="lead"),
        *scores,
    )


def _findings(report: EvaluationReport, columns: Columns) -> Html:
    """Write the findings as cards, problems first, one generator after the other."""
    parts = []
    for system in dict.fromkeys([*columns.generators, *(finding.system for finding in report.findings)]):
        cards = [
            element(
                "div", element("b", f"{name} · {finding.topic}"), element("p", finding.sentence), class_=f"card {level}"
            )
            for level, name in _LEVELS.items()
            for finding in report.findings
            if finding.system == system and finding.level == level
        ]
        if cards:
            heading = [element("h3", display_name(system))] if len(columns.generators) > 1 else []
            parts += [*heading, element("div", *cards, class_="cards")]
    return join(*parts)


def _figures(report: EvaluationReport, columns: Columns) -> Html:
    """Write the table and what its colours and marks mean."""
    chips = [
        element("span", element("span", mark, class_="mark"), f" {meaning}", class_=f"chip {where}")
        for where, (mark, meaning) in STANDINGS.items()
    ]
    marks = "On the scale: green band, the ceiling; disks, generators; diamonds, baselines; cross, memoriser."
    legend = element("div", *(chips if columns.ceiling else []), element("span", marks), class_="legend")
    return join(legend, figures_table(report.figures, columns, report.systems, report.spaces))


def _labels(report: EvaluationReport) -> Html:
    """Write the tables of labels with a caption."""
    if not report.labels:
        return Html("")
    caption = (
        "A classifier trained on real cells says which label a cell seems to have; it is right for some share of real "
        "cells and should be right for the same share of generated ones. Less means that cells are not what was asked "
        "for; more means that they are too typical. Differences are in "
        "percentage points; a grey bar is no more than the intervals explain."
    )
    return join(element("p", caption, class_="caption"), labels_table(report.labels, report.generators))


def _notes(report: EvaluationReport) -> Html:
    """Write notes, what the words mean, and versions."""
    parts: list[str] = []
    if report.notes:
        parts.append(element("ul", *(element("li", note) for note in report.notes)))
    if report.exhibits is None or not report.exhibits.sides:
        parts.append(element("p", "This page was written from saved numbers, which have no cells to draw."))
    terms = {display_name(name) if name != "ceiling" else "ceiling": text for name, text in report.systems.items()}
    terms |= {f"space “{name}”": text for name, text in report.spaces.items()}
    terms |= {
        "at the ceiling": "As good as real cells, or worse by no more than both 95 % intervals together explain.",
        "behind a baseline": "Farther from the ceiling than the best baseline.",
        "95 % interval": (
            "From bootstrap resamples of the cells: it covers which cells happened to be drawn, not how the generator "
            "happened to be trained."
        ),
        "log1p CP10K": "log(1 + counts scaled to 10,000 per cell).",
    }
    parts += [element("h3", "Words"), _terms(terms)]
    libraries = {"Python": python_version()} | {name: found for name in _LIBRARIES if (found := _version(name))}
    parts += [
        element("h3", "Versions"),
        element("p", ", ".join(f"{n} {v}" for n, v in libraries.items()), class_="caption"),
    ]
    return join(*parts)


def _terms(terms: dict[str, str]) -> Html:
    """Write a list of definitions."""
    return element(
        "dl",
        *(part for name, text in terms.items() for part in (element("dt", name), element("dd", text))),
        class_="terms",
    )


def _version(library: str) -> str | None:
    """Installed version of a library."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _footer() -> Html:
    """Say what wrote the page."""
    return element("footer", "Written by scldm evaluate. Works offline; print it or mail it as it is.")

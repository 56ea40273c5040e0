"""The picture of an evaluation: what a biologist would look at first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from scldm.evaluation.cells import Cells
from scldm.evaluation.genes import gene_means, pearson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

__all__ = ["Portrait", "draw"]

TITLES = {
    "reference": "held-out real cells",
    "generated": "generated cells",
    "independent_nb": "baseline: independent negative binomials",
}
COLOURS = {"reference": "#333333", "generated": "#d1495b", "independent_nb": "#3f7cac"}
BACKGROUND = "#dddddd"
OTHER_LABEL = "#8c8c8c"
MAX_LABELS = 19
MAX_POINTS = 3000
_DOTS: Any = {"linewidths": 0, "rasterized": True}


@dataclass(frozen=True, eq=False)
class Portrait:
    """What is drawn of one system.

    Attributes
    ----------
    cells
        The judged cells.
    features
        Their positions in the feature space.
    """

    cells: Cells
    features: Float[np.ndarray, "cells features"]


def draw(portraits: Mapping[str, Portrait], path: Path, *, label: str | None, title: str) -> None:
    """Draw real beside generated cells.

    Above: both and the baseline on the two principal components of real and generated cells together, coloured by
    label, the real cells in grey behind. Below: means of all genes, zeros against abundance, and sequencing depth.

    Parameters
    ----------
    portraits
        By system; ``reference``, ``ceiling``, ``generated`` and ``independent_nb`` are drawn.
    path
        Where to write it; the file ending names the format.
    label
        Column of labels to colour by; None draws every system in its own colour.
    title
        Headline.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {"font.size": 9, "axes.titlesize": 10.5, "axes.spines.top": False, "axes.spines.right": False}
    with rc_context(style):
        canvas = Figure(figsize=(13.5, 8.2), layout="constrained", facecolor="white")
        canvas.suptitle(title, fontsize=12.5)
        parts: Any = canvas.subfigures(2, 1, height_ratios=[1.08, 1])
        above, below = parts
        _draw_cells(above, portraits, label)
        means, zeros, depths = below.subplots(1, 3)
        _draw_gene_means(means, portraits)
        _draw_zero_fractions(zeros, portraits)
        _draw_depths(depths, portraits)
        canvas.savefig(path, dpi=150)


def _draw_cells(canvas: SubFigure, portraits: Mapping[str, Portrait], label: str | None) -> None:
    """Draw cells on the first two principal components of reference and generated cells together."""
    both = np.concatenate([portraits["reference"].features, portraits["generated"].features])
    centre = both.mean(axis=0)
    plane = np.linalg.svd(both - centre, full_matrices=False)[2][:2]
    flat = {name: ((p.features - centre) @ plane.T)[:MAX_POINTS] for name, p in portraits.items()}
    colours = _label_colours(portraits["reference"].cells, label)
    axes = canvas.subplots(1, 3, sharex=True, sharey=True)
    size = float(np.clip(9000 / len(both), 2.5, 22))
    for ax, (name, heading) in zip(axes, TITLES.items(), strict=True):
        if name != "reference":
            ax.scatter(*flat["reference"].T, s=size, c=BACKGROUND, linewidths=0, rasterized=True)
        point_colours: list[str] | str = COLOURS[name]
        cells = portraits[name].cells
        if colours and label in cells.labels:
            point_colours = [colours.get(value, OTHER_LABEL) for value in cells.labels[label][:MAX_POINTS]]
        ax.scatter(*flat[name].T, s=size, c=point_colours, alpha=0.85, linewidths=0, rasterized=True)
        ax.set(title=heading, xlabel="PC 1", xticks=[], yticks=[])
    axes[0].set_ylabel("PC 2")
    if colours:
        if portraits["reference"].cells.labels[label].nunique() > len(colours):
            colours["other"] = OTHER_LABEL
        marks = [axes[0].scatter([], [], s=24, c=colour, linewidths=0) for colour in colours.values()]
        canvas.legend(marks, list(colours), loc="outside right center", frameon=False, title=label, fontsize=8)


def _label_colours(reference: Cells, label: str | None) -> dict[str, str]:
    """Give the most frequent labels a colour each, in alphabetical order."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if label is None or label not in reference.labels:
        return {}
    frequent = sorted(reference.labels[label].value_counts().index[:MAX_LABELS])
    tab20 = colormaps["tab20"]
    # strong colours first, pale ones after; without the two greys, which are the background
    palette = [tab20(i) for i in range(0, 20, 2) if i != 14] + ["#0b2e6f"]
    palette += [tab20(i) for i in range(1, 20, 2) if i != 15]
    return {name: to_hex(colour) for name, colour in zip(frequent, palette, strict=False)}


def _draw_gene_means(ax: Axes, portraits: Mapping[str, Portrait]) -> None:
    """Draw the mean of every gene against the reference, and how far two halves of the real cells scatter."""
    reference, other, generated = (portraits[k].cells.gene_means for k in ("reference", "ceiling", "generated"))
    seen = (generated > 0) & (reference > 0)
    text = f"generated (r = {pearson(generated, reference):.4f})"
    ax.scatter(reference[seen], generated[seen], s=4, c=COLOURS["generated"], alpha=0.4, label=text, **_DOTS)
    seen = (other > 0) & (reference > 0)
    logs = np.log10(reference[seen])
    edges = _edges(logs)
    bounds = [_in_bins(logs, other[seen], edges, share) for share in (0.025, 0.975)]
    text = f"95 % of genes, real against real (r = {pearson(other, reference):.4f})"
    for bound, name in zip(bounds, (text, None), strict=True):
        ax.plot(10 ** _centres(edges), bound, color=COLOURS["reference"], linewidth=1.4, label=name)
    ax.set(xscale="log", yscale="log", title="mean of every gene (log1p CP10K)", xlabel="held-out real cells")
    ax.set_ylabel("generated cells")
    ax.legend(loc="upper left", frameon=False, fontsize=8)


def _draw_zero_fractions(ax: Axes, portraits: Mapping[str, Portrait]) -> None:
    """Draw the share of zeros against abundance: every generated gene, and the median of genes of equal abundance."""
    names = {"reference": "held-out real", "generated": "generated", "independent_nb": "baseline"}
    for name, text in names.items():
        cells = portraits[name].cells
        abundance, zeros = gene_means(cells.counts), cells.zero_fractions
        seen = abundance > 0
        logs, zeros = np.log10(abundance[seen]), zeros[seen]
        if name != "independent_nb":
            ax.scatter(10**logs, zeros, s=4, c=COLOURS[name], alpha=0.25, **_DOTS)
        edges = _edges(logs)
        style = "--" if name == "independent_nb" else "-"
        curve = _in_bins(logs, zeros, edges, 0.5)
        ax.plot(10 ** _centres(edges), curve, style, color=COLOURS[name], linewidth=1.8, label=text)
    ax.set(xscale="log", title="zeros against abundance, per gene", xlabel="mean UMI count per cell")
    ax.set_ylabel("share of cells without a count")
    ax.legend(loc="lower left", frameon=False)


def _draw_depths(ax: Axes, portraits: Mapping[str, Portrait]) -> None:
    """Draw the distribution of sequencing depths."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    depths = {name: np.maximum(portraits[name].cells.library_size, 1.0) for name in ("reference", "generated")}
    both = np.concatenate(list(depths.values()))
    n_bins = int(np.clip(1.3 * np.sqrt(len(depths["reference"])), 8, 40))
    edges = np.geomspace(both.min() * 0.999, both.max() * 1.001, n_bins + 1).tolist()
    texts = {name: f"(median {np.median(values):,.0f})" for name, values in depths.items()}
    ax.hist(depths["reference"], edges, color="#c9c9c9", label=f"held-out real {texts['reference']}")
    ax.hist(
        depths["generated"],
        edges,
        histtype="step",
        color=COLOURS["generated"],
        linewidth=1.8,
        label=f"generated {texts['generated']}",
    )
    ax.set(xscale="log", title="sequencing depth", xlabel="UMI counts per cell", ylabel="cells")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(top=ax.get_ylim()[1] * 1.2)
    ax.legend(loc="upper left", frameon=False)


def _edges(logs: np.ndarray) -> np.ndarray:
    """Cut the range of log abundances into bins, fewer of them for fewer genes."""
    return np.linspace(logs.min(), logs.max(), int(np.clip(len(logs) / 40, 6, 30)) + 1)


def _centres(edges: np.ndarray) -> np.ndarray:
    """Middle of every bin."""
    return (edges[:-1] + edges[1:]) / 2


def _in_bins(x: np.ndarray, y: np.ndarray, edges: np.ndarray, share: float) -> list[float]:
    """Quantile of y in every bin of x; NaN, a gap in a line, where a bin holds too few genes to say."""
    bins = [y[(x >= low) & (x <= high)] for low, high in pairwise(edges)]
    return [float(np.quantile(values, share)) if len(values) >= 5 else float("nan") for values in bins]

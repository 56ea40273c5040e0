"""Genes one by one: their means, their zeros and how widely they scatter."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scldm.evaluation.cells import Cells, gene_means
from scldm.evaluation.drawn import DrawnCells
from scldm.evaluation.metrics.moments import GeneMoments
from scldm.evaluation.metrics.pearson import pearson
from scldm.evaluation.plots.style import DOTS, new_figure
from scldm.evaluation.systems import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["abundant_moments", "draw_gene_means", "draw_genes", "draw_zero_fractions", "median_curve"]

_MIN_GENES_PER_BIN = 8
# The dispersion of rarer genes is noise.
_MIN_MEAN_COUNT = 0.1

Genes = Float[np.ndarray, " genes"]


def draw_genes(cells: DrawnCells) -> Figure:
    """Draw means of all genes, zeros against abundance, and the trend of dispersion."""
    with new_figure(11.6, 3.9) as figure:
        means, zeros, dispersions = figure.subplots(1, 3)
        draw_gene_means(means, cells)
        draw_zero_fractions(zeros, cells)
        draw_dispersions(dispersions, cells)
    return figure


def draw_gene_means(ax: Axes, cells: DrawnCells) -> None:
    """Draw the mean of every gene against the reference, and how far two halves of the real cells scatter."""
    reference = cells.reference.gene_means
    for name in reversed(cells.systems.generators):
        values = cells.sides[name].cells.gene_means
        seen = (values > 0) & (reference > 0)
        text = f"{cells.title(name)} (r = {pearson(values, reference):.4f})"
        ax.scatter(reference[seen], values[seen], s=4, c=cells.colour(name), alpha=0.4, label=text, **DOTS)
    for name in cells.systems.of_kind("ceiling"):
        other = cells.sides[name].cells.gene_means
        seen = (other > 0) & (reference > 0)
        logs = np.log10(reference[seen])
        text = f"95 % of genes, real against real (r = {pearson(other, reference):.4f})"
        for share, legend in ((0.025, text), (0.975, None)):
            middles, bound = median_curve(logs, other[seen], share)
            ax.plot(10**middles, bound, color=cells.colour(REFERENCE), linewidth=1.3, label=legend)
    ax.set(xscale="log", yscale="log", title="Mean of every gene (log1p CP10K)", xlabel="held-out real cells")
    ax.set_ylabel("generated cells")
    ax.legend(loc="upper left", frameon=False, fontsize=7.5, markerscale=3)


def draw_zero_fractions(ax: Axes, cells: DrawnCells) -> None:
    """Draw the share of zeros against abundance: every gene, and the median of genes of equal abundance."""
    for name in _names(cells):
        own = cells.sides[name].cells
        _draw_trend(ax, cells, name, gene_means(own.counts), own.zero_fractions)
    ax.set(xscale="log", title="Zeros against abundance, per gene", xlabel="mean UMI count per cell")
    ax.set_ylabel("share of cells without a count")
    ax.legend(loc="lower left", frameon=False, fontsize=8)


def draw_dispersions(ax: Axes, cells: DrawnCells) -> None:
    """Draw the dispersion (variance beyond Poisson noise at the cells' depths) against abundance.

    Genes with fewer than 0.1 UMI counts per cell are left out: their dispersion is noise.
    """
    for name in _names(cells):
        moments = abundant_moments(cells.sides[name].cells)
        dispersions = 10 ** moments.log_dispersions(np.arange(len(moments.expressed)))[0]
        _draw_trend(ax, cells, name, moments.mean_counts[0], dispersions, most_bins=15)
    ax.set(xscale="log", yscale="log", title="Dispersion trend", xlabel="mean UMI count per cell")
    ax.set_ylabel("dispersion (Poisson: 0; floor 0.01)")
    ax.legend(loc="upper right", frameon=False, fontsize=8)


def median_curve(x: Genes, y: Genes, share: float = 0.5, most_bins: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Compute a quantile of y in bins of x, at most `most_bins` and fewer for fewer genes.

    Returns the middle of every bin, and the quantile there: NaN, a gap in a line, where a bin holds fewer than 8 genes.
    """
    if len(x) == 0:
        return np.zeros(0), np.zeros(0)
    edges = np.linspace(x.min(), x.max(), int(np.clip(len(x) / 40, 6, most_bins)) + 1)
    bins = [y[(x >= low) & (x <= high)] for low, high in pairwise(edges)]
    curve = [np.quantile(values, share) if len(values) >= _MIN_GENES_PER_BIN else np.nan for values in bins]
    return (edges[:-1] + edges[1:]) / 2, np.array(curve)


def _names(cells: DrawnCells) -> tuple[str, ...]:
    """List whose curves to draw, the first generator last, on top."""
    return (REFERENCE, *cells.systems.baselines[:1], *reversed(cells.systems.generators))


def abundant_moments(cells: Cells) -> GeneMoments:
    """Compute the moments of the cells as they are; mean counts and dispersions are of genes with enough counts."""
    genes = np.flatnonzero(gene_means(cells.counts) >= _MIN_MEAN_COUNT)
    return GeneMoments.compute(cells.counts, cells.log1p_cp10k, np.ones((1, len(cells)), dtype=bool), genes)


def _draw_trend(ax: Axes, cells: DrawnCells, name: str, abundance: Genes, values: Genes, most_bins: int = 30) -> None:
    """Draw values of genes against their abundance: a curve of medians, for baselines dashed; dots for some systems."""
    seen = abundance > 0
    logs, values = np.log10(abundance[seen]), values[seen]
    colour = cells.colour(name)
    if name in cells.real_and_generated[:2]:
        ax.scatter(10**logs, values, s=4, c=colour, alpha=0.2, **DOTS)
    middles, curve = median_curve(logs, values, most_bins=most_bins)
    style = "--" if name in cells.systems.baselines else "-"
    ax.plot(10**middles, curve, style, color=colour, linewidth=1.8, label=cells.title(name))

"""Genes one by one: their means, their zeros and how widely they scatter."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from scldm.evaluation.cells import Cells
from scldm.evaluation.genes import gene_means, pearson
from scldm.evaluation.pictures.scene import DOTS, Scene, drawing_style, picture_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["dispersions_of", "draw_gene_means", "draw_genes", "draw_zero_fractions", "median_curve"]

_MIN_GENES_PER_BIN = 8
# Of rarer genes the dispersion is noise.
_MIN_MEAN_COUNT = 0.1
# Smaller or negative estimates mean: as good as Poisson.
_MIN_DISPERSION = 0.01


def draw_genes(scene: Scene) -> Figure:
    """Draw means of all genes, zeros against abundance, and the trend of dispersion."""
    from matplotlib.figure import Figure

    with drawing_style():
        canvas = Figure(figsize=(11.6, 3.9), layout="constrained")
        means, zeros, scatter = canvas.subplots(1, 3)
        draw_gene_means(means, scene)
        draw_zero_fractions(zeros, scene)
        draw_dispersions(scatter, scene)
    return canvas


def draw_gene_means(ax: Axes, scene: Scene) -> None:
    """Draw the mean of every gene against the reference, and how far two halves of the real cells scatter."""
    reference = scene.reference.cells.gene_means
    for name in reversed(scene.generators):
        values = scene.sides[name].cells.gene_means
        seen = (values > 0) & (reference > 0)
        text = f"{picture_name(name)} (r = {pearson(values, reference):.4f})"
        ax.scatter(reference[seen], values[seen], s=4, c=scene.colours[name], alpha=0.4, label=text, **DOTS)
    if "ceiling" in scene.sides:
        other = scene.sides["ceiling"].cells.gene_means
        seen = (other > 0) & (reference > 0)
        logs = np.log10(reference[seen])
        text = f"95 % of genes, real against real (r = {pearson(other, reference):.4f})"
        for share, legend in ((0.025, text), (0.975, None)):
            middles, bound = median_curve(logs, other[seen], share)
            ax.plot(10**middles, bound, color=scene.colours["reference"], linewidth=1.3, label=legend)
    ax.set(xscale="log", yscale="log", title="Mean of every gene (log1p CP10K)", xlabel="held-out real cells")
    ax.set_ylabel("generated cells")
    ax.legend(loc="upper left", frameon=False, fontsize=7.5, markerscale=3)


def draw_zero_fractions(ax: Axes, scene: Scene) -> None:
    """Draw the share of zeros against abundance: every gene, and the median of genes of equal abundance."""
    for name in ("reference", *scene.baselines[:1], *reversed(scene.generators)):
        cells = scene.sides[name].cells
        abundance, zeros = gene_means(cells.counts), cells.zero_fractions
        seen = abundance > 0
        logs, zeros = np.log10(abundance[seen]), zeros[seen]
        if name == "reference" or name in scene.generators[:1]:
            ax.scatter(10**logs, zeros, s=4, c=scene.colours[name], alpha=0.2, **DOTS)
        middles, curve = median_curve(logs, zeros)
        _draw_curve(ax, scene, name, 10**middles, curve)
    ax.set(xscale="log", title="Zeros against abundance, per gene", xlabel="mean UMI count per cell")
    ax.set_ylabel("share of cells without a count")
    ax.legend(loc="lower left", frameon=False, fontsize=8)


def draw_dispersions(ax: Axes, scene: Scene) -> None:
    """Draw the dispersion (variance beyond Poisson noise at the cells' depths) against abundance.

    Genes with fewer than 0.1 UMI counts per cell are left out: their dispersion is noise.
    """
    for name in ("reference", *scene.baselines[:1], *reversed(scene.generators)):
        cells = scene.sides[name].cells
        abundance, dispersions = dispersions_of(cells)
        genes = np.flatnonzero(abundance >= _MIN_MEAN_COUNT)
        logs, dispersions = np.log10(abundance[genes]), np.maximum(dispersions[genes], _MIN_DISPERSION)
        if name == "reference" or name in scene.generators[:1]:
            ax.scatter(10**logs, dispersions, s=4, c=scene.colours[name], alpha=0.2, **DOTS)
        middles, curve = median_curve(logs, dispersions, most_bins=15)
        _draw_curve(ax, scene, name, 10**middles, curve)
    ax.set(xscale="log", yscale="log", title="Dispersion trend", xlabel="mean UMI count per cell")
    ax.set_ylabel("dispersion (Poisson: 0; floor 0.01)")
    ax.legend(loc="upper right", frameon=False, fontsize=8)


def dispersions_of(cells: Cells) -> tuple[Float[np.ndarray, " genes"], Float[np.ndarray, " genes"]]:
    """Compute every gene's mean count and its dispersion by the method of moments, given the depths of the cells.

    With counts c ~ NB(mean s p, variance s p + phi (s p)^2) at depth s, E[c (c - 1)] = (1 + phi) s^2 p^2: the sums over
    cells of c, c (c - 1), s and s^2 give phi. It may come out negative; zero for a gene without counts.
    """
    mean = gene_means(cells.counts)
    pairs = gene_means(cells.counts.multiply(cells.counts).tocsr()) - mean
    depth = cells.library_size
    scale = depth.mean() ** 2 / max(float((depth**2).mean()), 1e-12)
    ratio = np.divide(pairs * scale, mean**2, out=np.ones_like(mean), where=mean > 0)
    return mean, ratio - 1.0


def median_curve(
    x: Float[np.ndarray, " genes"], y: Float[np.ndarray, " genes"], share: float = 0.5, most_bins: int = 30
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Compute a quantile of y in bins of x, fewer bins for fewer genes.

    Parameters
    ----------
    x, y
        One value each per gene.
    share
        Which quantile of y.
    most_bins
        How many bins with very many genes.

    Returns
    -------
    The middle of every bin, and the quantile there: NaN, a gap in a line, where a bin holds fewer than 8 genes.
    """
    if len(x) == 0:
        return np.zeros(0), np.zeros(0)
    edges = np.linspace(x.min(), x.max(), int(np.clip(len(x) / 40, 6, most_bins)) + 1)
    bins = [y[(x >= low) & (x <= high)] for low, high in pairwise(edges)]
    curve = [np.quantile(values, share) if len(values) >= _MIN_GENES_PER_BIN else np.nan for values in bins]
    return (edges[:-1] + edges[1:]) / 2, np.array(curve)


def _draw_curve(ax: Axes, scene: Scene, name: str, x: np.ndarray, y: np.ndarray) -> None:
    """Draw one system's curve; baselines are dashed."""
    style = "--" if name in scene.baselines else "-"
    ax.plot(x, y, style, color=scene.colours[name], linewidth=1.8, label=picture_name(name))

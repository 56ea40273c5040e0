"""Heat maps of gene-gene correlations: whether genes still go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.drawn import DrawnCells, plain
from scldm.evaluation.metrics.pearson import pair_correlations, pearson
from scldm.evaluation.plots.style import new_figure
from scldm.evaluation.systems import REFERENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

__all__ = ["clustered_order", "correlation_matrix", "draw_correlations"]

Correlations = Float[np.ndarray, "genes genes"]


def correlation_matrix(values: Float[np.ndarray, "cells genes"], within: np.ndarray | None = None) -> Correlations:
    """Compute Pearson's correlations over cells; zero for a gene that never varies.

    `within` has a label for every cell: what differs between labels is taken out first, by centring every label.
    """
    groups = None if within is None else np.unique(within.astype(str), return_inverse=True)[1]
    matrix = np.eye(values.shape[1])
    first, second = np.triu_indices(values.shape[1], k=1)
    matrix[first, second] = pair_correlations(values, np.ones((1, len(values)), dtype=bool), groups)[0]
    matrix[second, first] = matrix[first, second]
    return matrix


def clustered_order(correlations: Correlations) -> Int[np.ndarray, " genes"]:
    """Order genes so that correlated ones are neighbours (average linkage of 1 - correlation)."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(correlations) < 3:
        return np.arange(len(correlations))
    distances = squareform(np.clip(1 - correlations, 0, 2), checks=False)
    return np.asarray(leaves_list(optimal_leaf_ordering(linkage(distances, "average"), distances)), dtype=np.int64)


def draw_correlations(cells: DrawnCells, genes: Int[np.ndarray, " chosen"]) -> tuple[Figure, list[str]]:
    """Draw the correlations of the chosen genes: all cells above, within labels below.

    Columns are the held-out real cells, the other half of them (what chance alone changes), every generator and the
    first baseline. All maps have the order of genes that clusters the held-out cells, and one colour scale per row.
    Gives the names of the genes from top to bottom, too.
    """
    names = [REFERENCE, *cells.systems.of_kind("ceiling"), *cells.systems.generators, *cells.systems.baselines[:1]]
    values = {name: cells.sides[name].cells.log1p_cp10k[:, genes].toarray().astype(np.float64) for name in names}
    order = clustered_order(correlation_matrix(values[REFERENCE]))
    rows = ["all cells"]
    if cells.label is not None and all(cells.labels(name) is not None for name in names[:2]):
        rows.append(f"within {plain(cells.label)}")
    width = 10.3 / len(names)
    with new_figure(11.6, (width + 0.25) * len(rows) + 0.1) as figure:
        panels = np.atleast_2d(figure.subplots(len(rows), len(names), squeeze=False))
        for row, title in enumerate(rows):
            within = {name: cells.labels(name) if row else None for name in names}
            maps = {
                name: correlation_matrix(values[name], within[name])[np.ix_(order, order)]
                for name in names
                if not row or within[name] is not None
            }
            image = _draw_row(panels[row], cells, names, maps)
            panels[row][0].set_ylabel(title, fontsize=10)
            figure.colorbar(image, ax=list(panels[row]), shrink=0.75, aspect=16, pad=0.01, label="correlation")
    return figure, [str(name) for name in cells.reference.genes[genes[order]]]


def _draw_row(panels: np.ndarray, cells: DrawnCells, names: list[str], maps: dict[str, Correlations]) -> AxesImage:
    """Draw one row of maps, each with how well it agrees with the first."""
    upper = np.triu_indices(len(maps[REFERENCE]), k=1)
    strongest = float(np.quantile(np.abs(maps[REFERENCE][upper]), 0.99)) if len(upper[0]) else 1.0
    limit = max(strongest, 0.05)
    for ax, name in zip(panels, names, strict=True):
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        if name not in maps:
            ax.text(0.5, 0.5, "no labels", ha="center", va="center", color="#999999", transform=ax.transAxes)
            continue
        shown = maps[name].copy()
        np.fill_diagonal(shown, np.nan)  # its ones say nothing and would outshine the rest
        image = ax.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        text = cells.title(name)
        if name != REFERENCE:
            text += f" (r = {pearson(maps[name][upper], maps[REFERENCE][upper]):.2f})"
        ax.set_title(text, fontsize=9)
    return image

"""Real and generated cells in one plane."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from scldm.evaluation.drawn import DrawnCells
from scldm.evaluation.plots.style import DOTS, Placement, draw_cells, label_colours, label_legend, new_figure, shuffled
from scldm.evaluation.records import PRIMARY_SPACE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MIN_UMAP_CELLS", "Embedding", "draw_embedding", "joint_positions", "place", "plane"]

Embedding = Literal["umap", "pca"]

# Fewer cells than this have no neighbourhoods to speak of.
MIN_UMAP_CELLS = 50
# scanpy searches neighbours exactly up to 4,096 cells: no index to build, and the same neighbours everywhere.
MAX_CELLS = 4000


def plane(features: Sequence[Float[np.ndarray, "_ features"]]) -> tuple[np.ndarray, np.ndarray]:
    """Find the centre and the first two principal axes [2, features] of several sets of cells together."""
    together = np.concatenate(features)
    centre = together.mean(axis=0)
    axes = np.linalg.svd(together - centre, full_matrices=False)[2][:2]
    # the sign of an axis is arbitrary: make its largest entry positive, so that figures do not flip
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    return centre, axes * signs[:, None]


def joint_positions(
    features: Mapping[str, Float[np.ndarray, "_ features"]], method: Embedding
) -> tuple[dict[str, Float[np.ndarray, "_ 2"]], str]:
    """Place the cells of several systems, given in a feature space, in one plane, and name its axes.

    ``umap`` is through scanpy, with 15 neighbours, and seeded; ``pca`` takes the first two principal components of all
    cells together. The axes are ``PC`` also when there are fewer than 50 cells, for which UMAP means nothing, or when
    UMAP failed.
    """
    together = np.concatenate(list(features.values()))
    ends = np.cumsum([len(values) for values in features.values()])[:-1]
    flat = _umap(together) if method == "umap" and len(together) >= MIN_UMAP_CELLS else None
    axis_name = "PC" if flat is None else "UMAP"
    if flat is None:
        centre, axes = plane(list(features.values()))
        flat = (together - centre) @ axes.T
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    return dict(zip(features, np.split(flat, ends), strict=True)), axis_name


def _umap(features: np.ndarray) -> np.ndarray | None:
    """Compute UMAP; None where the installed libraries cannot."""
    import scanpy
    from anndata import AnnData
    from threadpoolctl import threadpool_limits

    adata = AnnData(features.astype(np.float32))
    # numba leaves the number of OpenMP threads, torch's included, at all cores: what trains next in the same process
    # would fight over them. Without limits of its own the context only puts back what was there.
    with warnings.catch_warnings(), threadpool_limits(limits=None):
        warnings.simplefilter("ignore")
        try:
            scanpy.pp.neighbors(adata, n_neighbors=15, use_rep="X", random_state=0)
            scanpy.tl.umap(adata, random_state=0)
        except Exception:  # numba and LLVM fail in many ways; a figure is not worth losing the report
            return None
    return np.asarray(adata.obsm["X_umap"], dtype=np.float64)


def place(cells: DrawnCells, method: Embedding) -> Placement:
    """Place held-out real cells and those of every generator in one plane; at most 4,000 cells in all."""
    names = cells.real_and_generated
    chosen = {name: shuffled(len(cells.sides[name].cells), MAX_CELLS // len(names)) for name in names}
    features = {name: cells.sides[name].features[PRIMARY_SPACE][rows] for name, rows in chosen.items()}
    return Placement(chosen, *joint_positions(features, method))


def draw_embedding(cells: DrawnCells, placement: Placement, overlay: bool = True) -> Figure:
    """Draw real cells and the cells of every generator, coloured by label, with the real ones in grey behind.

    The placement is from `place`; `overlay` adds a panel with the cells of the first generator among the real ones.
    """
    names = list(placement.positions)
    colours = label_colours(cells)
    n_panels = len(names) + 1
    n_columns = n_panels if n_panels <= 4 else 3
    n_rows = -(-n_panels // n_columns)
    width = 11.6 / n_columns
    n_legend_rows = -(-len(colours) // 4) + 1 if colours and overlay else 0
    size = float(np.clip(9000 / sum(map(len, placement.positions.values())), 3.0, 20))
    with new_figure(11.6, n_rows * (width + 0.25) + 0.18 * n_legend_rows) as figure:
        panels = np.ravel(figure.subplots(n_rows, n_columns, sharex=True, sharey=True))
        for ax, name in zip(panels, names, strict=False):
            draw_cells(ax, cells, name, placement, colours, size)
            ax.set(title=cells.title(name), xlabel=f"{placement.axis_name} 1")
        for ax in panels:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        panels[0].set_ylabel(f"{placement.axis_name} 2")
        if overlay:
            _draw_overlay(panels[len(names)], cells, placement.positions, size)
        longest = max(map(len, colours), default=0)
        options = {"fontsize": 8.5, "handletextpad": 0.2}
        if colours and overlay:
            n_entries = len(colours) + (cells.n_labels > len(colours))
            n_columns = min(n_entries, 4 if longest > 18 else 6)
            label_legend(figure, panels[0], cells, colours, loc="outside lower center", ncols=n_columns, **options)
        elif colours:
            label_legend(panels[len(names)], panels[0], cells, colours, loc="center", **options)
    return figure


def _draw_overlay(ax: Axes, cells: DrawnCells, positions: Mapping[str, np.ndarray], size: float) -> None:
    """Draw real cells and those of the first generator over each other, in random order."""
    names = cells.real_and_generated[:2]
    both = np.concatenate([positions[name] for name in names])
    colours = np.repeat([cells.colour(name) for name in names], [len(positions[name]) for name in names])
    order = shuffled(len(both), len(both))
    ax.scatter(both[order, 0], both[order, 1], s=size, c=list(colours[order]), alpha=0.6, **DOTS)
    for name in names:
        ax.scatter([], [], s=22, c=cells.colour(name), label=cells.title(name))
    ax.set(title="both", xlabel="")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, fontsize=8, handletextpad=0.2)

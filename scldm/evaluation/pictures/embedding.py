"""Real and generated cells in one plane."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.pictures.scene import (
    BACKGROUND,
    DOTS,
    OTHER_LABEL,
    Scene,
    drawing_style,
    label_colours,
    picture_name,
    plain,
    shuffled,
)
from scldm.evaluation.registry import PRIMARY_SPACE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MIN_UMAP_CELLS", "Embedding", "Placement", "draw_embedding", "joint_positions", "place", "plane"]

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
    # the sign of an axis is arbitrary: make its largest entry positive, so that pictures do not flip
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    return centre, axes * signs[:, None]


def joint_positions(
    features: Mapping[str, Float[np.ndarray, "_ features"]], method: Embedding
) -> tuple[dict[str, Float[np.ndarray, "_ 2"]], str]:
    """Place the cells of several systems in one plane.

    Parameters
    ----------
    features
        Positions in a feature space, by system.
    method
        ``umap`` (through scanpy, 15 neighbours, seeded), or ``pca``: the first two principal components of all cells
        together.

    Returns
    -------
    Positions by system, and the name of the axes. It is ``PC`` when there are fewer than 50 cells, for which UMAP
    means nothing, or when UMAP failed.
    """
    together = np.concatenate(list(features.values()))
    ends = np.cumsum([len(values) for values in features.values()])[:-1]
    if method == "umap" and len(together) >= MIN_UMAP_CELLS:
        flat = _umap(together)
        if flat is not None:
            return dict(zip(features, np.split(flat, ends), strict=True)), "UMAP"
    centre, axes = plane(list(features.values()))
    flat = (together - centre) @ axes.T
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    return dict(zip(features, np.split(flat, ends), strict=True)), "PC"


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
        except Exception:  # numba and LLVM fail in many ways; a picture is not worth losing the report
            return None
    return np.asarray(adata.obsm["X_umap"], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the cells to draw lie in the plane.

    Attributes
    ----------
    chosen
        Which cells of every system, in random order.
    positions
        Their positions [cells, 2].
    axis_name
        ``UMAP`` or ``PC``.
    """

    chosen: Mapping[str, Int[np.ndarray, " _"]]
    positions: Mapping[str, Float[np.ndarray, "_ 2"]]
    axis_name: str


def place(scene: Scene, method: Embedding) -> Placement:
    """Place held-out real cells and those of every generator in one plane; at most 4,000 cells in all."""
    names = ["reference", *scene.generators]
    chosen = {name: shuffled(len(scene.sides[name].cells), MAX_CELLS // len(names)) for name in names}
    features = {name: scene.sides[name].features[PRIMARY_SPACE][cells] for name, cells in chosen.items()}
    return Placement(chosen, *joint_positions(features, method))


def draw_embedding(scene: Scene, placement: Placement, overlay: bool = True) -> Figure:
    """Draw real cells and the cells of every generator, coloured by label, with the real ones in grey behind.

    Parameters
    ----------
    scene
        The systems.
    placement
        From `place`.
    overlay
        Whether to add a panel of our generated cells among the real ones.
    """
    from matplotlib.figure import Figure

    names = list(placement.positions)
    colours = label_colours(scene)
    n_panels = len(names) + 1
    n_columns = n_panels if n_panels <= 4 else 3
    n_rows = -(-n_panels // n_columns)
    width = 11.6 / n_columns
    n_legend_rows = -(-len(colours) // 4) + 1 if colours and overlay else 0
    with drawing_style():
        canvas = Figure(figsize=(11.6, n_rows * (width + 0.25) + 0.18 * n_legend_rows), layout="constrained")
        panels = np.ravel(canvas.subplots(n_rows, n_columns, sharex=True, sharey=True))
        size = float(np.clip(9000 / sum(map(len, placement.positions.values())), 3.0, 20))
        for ax, name in zip(panels, names, strict=False):
            if name != "reference":
                ax.scatter(*placement.positions["reference"].T, s=size, c=BACKGROUND, **DOTS)
            point_colours: Any = scene.colours[name]
            labels = scene.labels(name)
            if colours and labels is not None:
                point_colours = [colours.get(value, OTHER_LABEL) for value in labels[placement.chosen[name]]]
            ax.scatter(*placement.positions[name].T, s=size, c=point_colours, alpha=0.85, **DOTS)
            ax.set(title=picture_name(name), xlabel=f"{placement.axis_name} 1")
        for ax in panels:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        panels[0].set_ylabel(f"{placement.axis_name} 2")
        if overlay:
            _draw_overlay(panels[len(names)], scene, placement.positions, size)
        if colours:
            _draw_legend(canvas if overlay else panels[len(names)], panels[0], scene, colours)
    return canvas


def _draw_overlay(ax: Axes, scene: Scene, positions: Mapping[str, np.ndarray], size: float) -> None:
    """Draw real and our generated cells over each other, in random order."""
    ours = scene.generators[0]
    both = np.concatenate([positions["reference"], positions[ours]])
    colour = np.repeat(
        [scene.colours["reference"], scene.colours[ours]], [len(positions[n]) for n in ("reference", ours)]
    )
    order = shuffled(len(both), len(both))
    ax.scatter(both[order, 0], both[order, 1], s=size, c=list(colour[order]), alpha=0.6, **DOTS)
    for name in ("reference", ours):
        ax.scatter([], [], s=22, c=scene.colours[name], label=picture_name(name))
    ax.set(title="both", xlabel="")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, fontsize=8, handletextpad=0.2)


def _draw_legend(where: Figure | Axes, ax: Axes, scene: Scene, colours: Mapping[str, str]) -> None:
    """Name the labels, below all panels or in an empty one."""
    from matplotlib.figure import Figure

    entries = dict(colours)
    if scene.reference.cells.labels[scene.label].nunique() > len(colours):
        entries["other"] = OTHER_LABEL
    marks = [ax.scatter([], [], s=26, c=colour, linewidths=0) for colour in entries.values()]
    below = isinstance(where, Figure)
    where.legend(
        marks,
        [plain(name) for name in entries],
        loc="outside lower center" if below else "center",
        ncols=min(len(entries), 4 if max(map(len, entries)) > 18 else 6) if below else 1,
        frameon=False,
        title=plain(str(scene.label)),
        fontsize=8.5,
        handletextpad=0.2,
    )

"""Dot plots of marker genes: whether every cell type is still made of the genes that make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.cells import Cells
from scldm.evaluation.drawn import DrawnCells, plain
from scldm.evaluation.metrics.markers import detected_genes, fold_changes
from scldm.evaluation.plots.style import drawing_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

__all__ = ["MARKERS_PER_LABEL", "choose_markers", "draw_markers", "expression_by_label"]

MARKERS_PER_LABEL = 3
MAX_LABELS = 16
_GENE_INCHES = 0.235
_LARGEST_DOT = 95.0


@dataclass(frozen=True, eq=False)
class LabelExpression:
    """What is drawn of one system: the mean of every label and gene, and the share of cells with a count."""

    means: Float[np.ndarray, "labels genes"]
    shares: Float[np.ndarray, "labels genes"]
    n_cells: Int[np.ndarray, " labels"]


def expression_by_label(cells: Cells, own: np.ndarray, labels: list[str]) -> LabelExpression:
    """Average log1p CP10K over the cells of every label, and count the cells with a count.

    The label of every cell is `own`; the rows are in the order of `labels`, and one without cells has zeros.
    """
    member = np.stack([own == label for label in labels]).astype(np.float64)
    n_cells = member.sum(axis=1)
    over = np.maximum(n_cells, 1.0)[:, None]
    means = (cells.log1p_cp10k.T @ member.T).T / over
    shares = ((cells.counts > 0).astype(np.float64).T @ member.T).T / over
    return LabelExpression(means, shares, n_cells.astype(np.int64))


def choose_markers(
    cells: Cells, own: np.ndarray, labels: list[str], per_label: int = MARKERS_PER_LABEL
) -> list[tuple[str, int]]:
    """Choose marker genes of every label: the largest log fold changes against all other cells.

    The fold change is a difference of means of log1p CP10K; genes that less than a tenth of the label's cells express
    are left out, and no gene is taken twice. Gives pairs of label and gene (by position), in the order of the labels.
    """
    present = [label for label in labels if 0 < int((own == label).sum()) < len(cells)]
    changes = fold_changes(cells.log1p_cp10k, own, present, np.ones((1, len(cells)), dtype=bool))
    chosen: list[tuple[str, int]] = []
    taken: set[int] = set()
    for label, change in zip(present, changes, strict=True):
        candidates = set(detected_genes(cells.counts, own, [label]).tolist()) - taken
        by_change = [int(gene) for gene in np.argsort(-change[0], kind="stable") if int(gene) in candidates]
        best = [gene for gene in by_change[:per_label] if change[0, gene] > 0]
        taken.update(best)
        chosen += [(label, gene) for gene in best]
    return chosen


def draw_markers(cells: DrawnCells) -> Figure | None:
    """Draw the markers of every label, real beside generated, on the same scales; who has no labels is left out.

    The markers are chosen from the fitting cells, which are not compared. None when there are fewer than two labels.
    """
    fitting = cells.fitted.fitting.cells
    if cells.label is None or cells.label not in fitting.labels:
        return None
    labels = cells.frequent_labels(MAX_LABELS)
    per_label = MARKERS_PER_LABEL if len(labels) > MARKERS_PER_LABEL else 2 * MARKERS_PER_LABEL
    markers = choose_markers(fitting, fitting.labels[cells.label].to_numpy(dtype=object), labels, per_label)
    if len(labels) < 2 or not markers:
        return None
    shown = {}
    for name in cells.real_and_generated:
        own = cells.labels(name)
        if own is not None:
            shown[f"{cells.title(name)}, by {cells.label}"] = expression_by_label(cells.sides[name].cells, own, labels)
    genes = [gene for _, gene in markers]
    gene_names = [plain(str(name)) for name in cells.reference.genes[genes]]
    brightest = max(float(e.means[:, genes].max()) for e in shown.values())
    with drawing_style():
        figure, panels = _panels(len(shown), labels, gene_names)
        for ax, (title, expression) in zip(panels, shown.items(), strict=True):
            dots = _draw_dots(ax, expression, genes, brightest)
            ax.set_title(plain(title), loc="left")
            ax.set_xticks(range(len(genes)), gene_names, rotation=90, fontsize=8, style="italic")
            ax.set_yticks(range(len(labels)), [plain(label) for label in labels], fontsize=8.5)
            _frame_groups(ax, [label for label, _ in markers], labels)
        figure.colorbar(dots, ax=list(panels), shrink=0.9, aspect=18, pad=0.01, label="mean log1p CP10K")
        _name_sizes(figure, panels[-1])
    return figure


def _panels(n_panels: int, labels: list[str], genes: list[str]) -> tuple[Figure, np.ndarray]:
    """Make panels beside each other where they fit, else below each other."""
    from matplotlib.figure import Figure

    margin = 0.3 + 0.065 * max(map(len, labels))
    below = 0.25 + 0.065 * max(map(len, genes))
    height = max(0.25 * len(labels) + 0.3, 1.6)
    beside = margin + len(genes) * _GENE_INCHES * n_panels + 1.2 < 11.8
    n_rows, n_columns = (1, n_panels) if beside else (n_panels, 1)
    figure = Figure(figsize=(11.6, height * n_rows + below + 0.5), layout="constrained")
    return figure, np.ravel(figure.subplots(n_rows, n_columns, sharex=not beside, sharey=beside))


def _draw_dots(ax: Axes, expression: LabelExpression, genes: list[int], brightest: float) -> PathCollection:
    """Draw one dot for every label and gene: area by share of cells, colour by mean."""
    rows, columns = np.mgrid[: len(expression.means), : len(genes)]
    dots = ax.scatter(
        columns,
        rows,
        s=_LARGEST_DOT * expression.shares[:, genes],
        c=expression.means[:, genes],
        cmap="Reds",
        vmin=0.0,
        vmax=brightest,
        edgecolors="#00000055",
        linewidths=0.4,
    )
    for row in np.flatnonzero(expression.n_cells == 0):
        ax.text(0, int(row), "no cells with this label", va="center", fontsize=8, color="#999999")
    ax.set(xlim=(-0.7, len(genes) - 0.3), ylim=(len(expression.means) - 0.4, -0.6))
    ax.tick_params(length=0)
    return dots


def _frame_groups(ax: Axes, owners: list[str], labels: list[str]) -> None:
    """Shade every second group of genes, and frame every label's own markers."""
    from matplotlib.patches import Rectangle

    starts = [i for i, owner in enumerate(owners) if i == 0 or owner != owners[i - 1]]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(owners)], strict=True)):
        if number % 2 == 0:
            ax.axvspan(start - 0.5, end - 0.5, color="#f3f3f3", zorder=0, linewidth=0)
        corner = (start - 0.5, labels.index(owners[start]) - 0.5)
        ax.add_patch(Rectangle(corner, end - start, 1, fill=False, edgecolor="#777777", linewidth=0.8))


def _name_sizes(figure: Figure, ax: Axes) -> None:
    shares = (0.1, 0.25, 0.5, 1.0)
    marks = [
        ax.scatter([], [], s=_LARGEST_DOT * s, c="#bbbbbb", edgecolors="#00000055", linewidths=0.4) for s in shares
    ]
    figure.legend(
        marks,
        [f"{share:.0%}" for share in shares],
        loc="outside lower center",
        ncols=len(shares),
        frameon=False,
        title="cells with a count",
        title_fontsize=8.5,
        fontsize=8.5,
    )

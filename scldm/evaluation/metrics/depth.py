"""Metrics of sequencing depth: library sizes, overall and label by label."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from scldm.evaluation.compare import Comparison, Masks, Rows
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, MIN_SYSTEM_CELLS
from scldm.evaluation.metrics.registry import Limit, fold, metric, more
from scldm.evaluation.metrics.rows import median_ratio

__all__ = ["kolmogorov_smirnov"]


@metric(
    "depth_ratio",
    group="depth",
    direction="closest to ceiling",
    description="Median library size (UMI counts) divided by that of the reference.",
    values="0 or more",
    degenerate="1 for real cells; not computed where half of the cells have no counts.",
    limits=Limit(
        "depth",
        fold(1.10, 1.50),
        "Cells are not as deep as real ones: the median library size is {value:.2f} times the real one.",
        "ratio of medians",
    ),
)
def _depth_ratio(c: Comparison) -> Rows | None:
    return median_ratio(c.pool.cells.library_size, c.system, c.reference)


@metric(
    "depth_ks",
    group="depth",
    direction="lower",
    display_name="Depth KS",
    description="Kolmogorov-Smirnov statistic between library sizes: the largest difference of the two cumulative "
    "distributions.",
    values="0 to 1",
    degenerate="0 only for equal depths; real cells have a small positive value.",
    limits=Limit(
        "depth",
        more(0.10, 0.40),
        "Library sizes are not distributed as in real cells (Kolmogorov-Smirnov {value:.2f}, real: {ceiling:.2f}).",
        "Kolmogorov-Smirnov",
    ),
)
def _depth_ks(c: Comparison) -> Rows:
    return kolmogorov_smirnov(c.pool.cells.library_size, c.system, c.reference)


@metric(
    "depth_ks_within",
    group="depth",
    direction="lower",
    display_name="Depth KS within",
    description="Kolmogorov-Smirnov statistic between library sizes of cells with the same label, averaged over labels "
    f"with at least {MIN_CELLS_PER_LABEL} expected cells, each weighted by its cells in the reference; 1 for one "
    f"of which the system has fewer than {MIN_SYSTEM_CELLS} cells.",
    values="0 to 1",
    degenerate="A missed label counts 1; not computed without a frequent label.",
    scope="condition",
)
def _depth_ks_within(c: Comparison, condition: str) -> Rows | None:
    column, labels = c.pool.labels(condition), c.judged_labels(condition)
    if column is None or not labels:
        return None
    depth, total, n_cells = c.pool.cells.library_size, np.zeros(c.n_rows), np.zeros(c.n_rows)
    for label in labels:
        cells = np.flatnonzero(column == label)
        system, reference = c.system[:, cells], c.reference[:, cells]
        statistic = kolmogorov_smirnov(depth[cells], system, reference)
        n_reference = reference.sum(axis=1)
        total += n_reference * np.where(system.sum(axis=1) >= MIN_SYSTEM_CELLS, statistic, 1.0)
        n_cells += n_reference
    return total / np.maximum(n_cells, 1)


def kolmogorov_smirnov(values: Float[np.ndarray, " cells"], system: Masks, reference: Masks) -> Rows:
    """Compute the largest difference between the cumulative distributions of the chosen cells, in every row.

    0 when they are equal, 1 when they do not overlap.
    """
    order = np.argsort(values, kind="stable")
    gap = np.zeros((len(system), len(values)))
    for chosen, sign in ((system, 1.0), (reference, -1.0)):
        gap += sign * np.cumsum(chosen[:, order], axis=1) / np.maximum(chosen.sum(axis=1, keepdims=True), 1)
    last_of_ties = np.append(np.diff(values[order]) > 0, True)
    return np.abs(gap[:, last_of_ties]).max(axis=1)

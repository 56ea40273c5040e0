"""Metrics of sequencing depth: library sizes, overall and label by label."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from scldm.evaluation.bootstrap import Estimate, Rows, median_ratio
from scldm.evaluation.compare import Comparison, Side
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, MIN_SYSTEM_CELLS, frequent_labels
from scldm.evaluation.metrics.registry import Limit, fold, metric, more

__all__ = ["kolmogorov_smirnov"]


@metric(
    "depth_ratio",
    group="depth",
    direction="closest to ceiling",
    description="Median library size (UMI counts) divided by that of the reference.",
    limits=Limit(
        "depth",
        fold(1.10, 1.50),
        "Cells are not as deep as real ones: the median library size is {value:.2f} times the real one.",
        "ratio of medians",
    ),
)
def _depth_ratio(c: Comparison) -> Estimate | None:
    system, reference = (side.cells.library_size for side in (c.system, c.reference))
    return median_ratio(system, reference, c.system.weights, c.reference.weights)


@metric(
    "depth_ks",
    group="depth",
    direction="lower",
    display_name="Depth KS",
    description="Kolmogorov-Smirnov statistic between library sizes: the largest difference of the two cumulative "
    "distributions.",
    limits=Limit(
        "depth",
        more(0.10, 0.40),
        "Library sizes are not distributed as in real cells (Kolmogorov-Smirnov {value:.2f}, real: {ceiling:.2f}).",
        "Kolmogorov-Smirnov",
    ),
)
def _depth_ks(c: Comparison) -> Estimate | None:
    return Estimate.of(_statistics(c.system, c.reference))


@metric(
    "depth_ks_within",
    group="depth",
    direction="lower",
    display_name="Depth KS within",
    description="Kolmogorov-Smirnov statistic between library sizes of cells with the same label, averaged over labels "
    f"with at least {MIN_CELLS_PER_LABEL} reference cells, each weighted by the number of these; 1 for a label of "
    f"which the system has fewer than {MIN_SYSTEM_CELLS} cells.",
    scope="condition",
)
def _depth_ks_within(c: Comparison, condition: str) -> Estimate | None:
    columns = [side.labels(condition) for side in (c.system, c.reference)]
    if columns[0] is None or columns[1] is None or not (labels := frequent_labels(columns[1])):
        return None
    cells = [[np.flatnonzero(column == label) for column in columns] for label in labels]
    each = [
        _statistics(c.system.take(system), c.reference.take(reference))
        if len(system) >= MIN_SYSTEM_CELLS
        else np.ones(1 + len(c.reference.weights))
        for system, reference in cells
    ]
    return Estimate.of(np.average(each, axis=0, weights=[len(reference) for _, reference in cells]))


def _statistics(system: Side, reference: Side) -> Rows:
    return kolmogorov_smirnov(system.cells.library_size, reference.cells.library_size, system.rows, reference.rows)


def kolmogorov_smirnov(
    system: Float[np.ndarray, " n"],
    reference: Float[np.ndarray, " m"],
    system_weights: Float[np.ndarray, "rows n"],
    reference_weights: Float[np.ndarray, "rows m"],
) -> Rows:
    """Compute the largest difference between two cumulative distributions, for every row of weights.

    0 when they are equal, 1 when they do not overlap.
    """
    values = np.concatenate([system, reference])
    order = np.argsort(values, kind="stable")
    shares = [
        w / np.maximum(w.sum(axis=1, keepdims=True, dtype=np.float64), 1.0) for w in (system_weights, reference_weights)
    ]
    gap = np.cumsum(np.concatenate([shares[0], -shares[1]], axis=1)[:, order], axis=1)
    last_of_ties = np.append(np.diff(values[order]) > 0, True)
    return np.abs(gap[:, last_of_ties]).max(axis=1)

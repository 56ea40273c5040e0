"""Figures of merit of sequencing depth: library sizes, overall and label by label."""

from __future__ import annotations

import numpy as np

from scldm.evaluation.depths import kolmogorov_smirnov, median_ratio
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL
from scldm.evaluation.markers import MIN_SYSTEM_CELLS, frequent_labels
from scldm.evaluation.registry import Comparison, Side, figure
from scldm.evaluation.resampling import Estimate

__all__: list[str] = []


@figure(
    "depth_ratio",
    "depth",
    "closest to ceiling",
    "Median library size (UMI counts) divided by that of the reference.",
)
def _depth_ratio(c: Comparison) -> Estimate | None:
    found = median_ratio(
        c.system.cells.library_size, c.reference.cells.library_size, c.system.weights, c.reference.weights
    )
    return None if found is None else Estimate(*found)


@figure(
    "depth_ks",
    "depth",
    "lower",
    "Kolmogorov-Smirnov statistic between library sizes: the largest difference of the two cumulative distributions.",
)
def _depth_ks(c: Comparison) -> Estimate:
    statistics = _statistics(c.system, c.reference)
    return Estimate(float(statistics[0]), statistics[1:])


@figure(
    "depth_ks_within",
    "depth",
    "lower",
    "Kolmogorov-Smirnov statistic between library sizes of cells with the same label, averaged over labels with at "
    f"least {MIN_CELLS_PER_LABEL} reference cells, each weighted by the number of these; 1 for a label of which the "
    f"system has fewer than {MIN_SYSTEM_CELLS} cells.",
    scope="condition",
)
def _depth_ks_within(c: Comparison, condition: str) -> Estimate | None:
    if any(condition not in side.cells.labels for side in (c.system, c.reference)):
        return None
    columns = [side.cells.labels[condition].to_numpy(dtype=object) for side in (c.system, c.reference)]
    labels = frequent_labels(columns[1])
    if not labels:
        return None
    cells = [[np.flatnonzero(column == label) for column in columns] for label in labels]
    each = [
        _statistics(c.system.take(system), c.reference.take(reference))
        if len(system) >= MIN_SYSTEM_CELLS
        else np.ones(1 + len(c.reference.weights))
        for system, reference in cells
    ]
    mean = np.average(each, axis=0, weights=[len(reference) for _, reference in cells])
    return Estimate(float(mean[0]), mean[1:])


def _statistics(system: Side, reference: Side) -> np.ndarray:
    """Compute the statistic for the cells as they are, then for every resample."""
    weights = [np.vstack([np.ones(len(side.cells)), side.weights]) for side in (system, reference)]
    return kolmogorov_smirnov(system.cells.library_size, reference.cells.library_size, *weights)

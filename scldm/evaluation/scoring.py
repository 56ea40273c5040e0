"""Compute metrics for every system: over equal numbers of cells in several splits, or over all cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from scldm.evaluation.bootstrap import Estimate
from scldm.evaluation.compare import Comparison, Fitted, Side, Split
from scldm.evaluation.draws import stratified_choice
from scldm.evaluation.metrics.registry import Metric
from scldm.evaluation.records import GROUPS, Record
from scldm.evaluation.systems import CEILING
from scldm.seeds import numpy_rng

__all__ = ["score"]

# What an attacker gets of a system; more makes the attack slower and hardly better.
MAX_RELEASED = 20_000


def score(
    metrics: Iterable[Metric],
    fitted: Fitted,
    splits: Iterable[Split],
    held_out: Side,
    systems: Mapping[str, Side],
    conditions: Sequence[str],
) -> tuple[Record, ...]:
    """Compute every metric for every system.

    Values are averaged over the splits, which are looked at one after the other; metrics that do not depend on the
    number of cells take all of them. Records come by group, the primary space first; those of one metric and space or
    condition follow each other.
    """
    rows = _rows(metrics, list(fitted.spaces), conditions)
    found: defaultdict[tuple[str, str | None, str], list[Estimate]] = defaultdict(list)

    def compute(system: str, comparison: Comparison, all_cells: bool) -> None:
        for metric, argument in rows:
            if metric.all_cells == all_cells:
                estimate = metric.compute(comparison, *([] if argument is None else [argument]))
                if estimate is not None:
                    found[metric.info.name, argument, system].append(estimate)

    for name, side in systems.items():
        compute(name, Comparison(fitted, held_out, side, release=side), all_cells=True)
    released = {name: _released(side) for name, side in systems.items() if name != CEILING}
    for split in splits:
        for name, side in split.systems.items():
            release = released.get(name, side)
            compute(name, Comparison(fitted, split.reference, side, release, split.number), all_cells=False)

    records = []
    for metric, argument in rows:
        space, condition = (argument, None) if metric.scope == "space" else (None, argument)
        for system in systems:
            estimates = found.get((metric.info.name, argument, system))
            if estimates and (value := Estimate.mean(estimates).reported) is not None:
                records.append(Record(metric.info.name, system, value.value, value.low, value.high, space, condition))
    return tuple(records)


def _rows(
    metrics: Iterable[Metric], spaces: Sequence[str], conditions: Sequence[str]
) -> list[tuple[Metric, str | None]]:
    """List all metrics with the space or condition that each is computed for, if any, in the order of the table."""
    groups, arguments = list(GROUPS), {"once": [None], "space": spaces, "condition": conditions}
    rows = [
        (groups.index(metric.info.group), number if metric.scope == "space" else 0, metric, argument)
        for metric in metrics
        for number, argument in enumerate(arguments[metric.scope])
    ]
    return [(metric, argument) for _, _, metric, argument in sorted(rows, key=lambda row: row[:2])]


def _released(side: Side) -> Side:
    """Take the cells of a system that an attacker gets: all, or as many as are needed."""
    if len(side.cells) <= MAX_RELEASED:
        return side
    return side.take(stratified_choice(side.cells.labels, MAX_RELEASED, numpy_rng(0, "release")))

"""Compute metrics for every system: over equal numbers of cells in several splits, or over all cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from scldm.evaluation.bootstrap import Estimate
from scldm.evaluation.compare import Comparison, Fitted, Side, Split
from scldm.evaluation.draws import stratified_choice
from scldm.evaluation.metrics.registry import Metric
from scldm.evaluation.records import GROUPS, Record
from scldm.seeds import numpy_rng

__all__ = ["score"]

# What an attacker gets of a system; more makes the attack slower and hardly better.
MAX_RELEASED = 20_000

# Metric, space or condition, system.
_Key = tuple[str, str | None, str]


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
    metrics = list(metrics)
    arguments = {one.info.name: _arguments(one, fitted, conditions) for one in metrics}
    found: defaultdict[_Key, list[Estimate]] = defaultdict(list)

    def compute(comparisons: Iterable[tuple[str, Comparison]], all_cells: bool) -> None:
        for system, comparison in comparisons:
            for one in metrics:
                if one.all_cells != all_cells:
                    continue
                for argument in arguments[one.info.name]:
                    given = () if argument is None else (argument,)
                    if (estimate := one.compute(comparison, *given)) is not None:
                        found[one.info.name, argument, system].append(estimate)

    compute(((name, Comparison(fitted, held_out, side, release=side)) for name, side in systems.items()), True)
    released = {name: _released(side) for name, side in systems.items() if name != "ceiling"}
    for split in splits:
        sides = ((name, side, released.get(name, side)) for name, side in split.systems.items())
        compute(((name, Comparison(fitted, split.reference, *both, split.number)) for name, *both in sides), False)
    return tuple(_records(metrics, fitted, arguments, found, systems))


def _released(side: Side) -> Side:
    """Take the cells of a system that an attacker gets: all, or as many as are needed."""
    if len(side.cells) <= MAX_RELEASED:
        return side
    return side.take(stratified_choice(side.cells.labels, MAX_RELEASED, numpy_rng(0, "release")))


def _arguments(metric: Metric, fitted: Fitted, conditions: Sequence[str]) -> list[str | None]:
    """List the spaces or conditions that a metric is computed for; a single None for one that needs none."""
    if metric.scope == "once":
        return [None]
    return list(fitted.spaces if metric.scope == "space" else conditions)


def _records(
    metrics: Sequence[Metric],
    fitted: Fitted,
    arguments: Mapping[str, Sequence[str | None]],
    found: Mapping[_Key, Sequence[Estimate]],
    systems: Iterable[str],
) -> Iterator[Record]:
    """Average estimates over splits, in the order of the table."""
    groups, spaces = list(GROUPS), list(fitted.spaces)
    rows = [(one, argument) for one in metrics for argument in arguments[one.info.name]]

    def place(row: tuple[Metric, str | None]) -> tuple[int, int]:
        metric, argument = row
        return groups.index(metric.info.group), spaces.index(str(argument)) if metric.scope == "space" else 0

    for metric, argument in sorted(rows, key=place):
        for system in systems:
            estimates = found.get((metric.info.name, argument, system))
            value = Estimate.mean(estimates).reported if estimates else None
            if value is not None:
                space, condition = (argument, None) if metric.scope == "space" else (None, argument)
                yield Record(metric.info.name, system, value.value, value.low, value.high, space, condition)

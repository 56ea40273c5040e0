"""Compute figures of merit for every system: over equal numbers of cells in several splits, or over all cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from scldm.evaluation.neighbours import N_NEIGHBOURS, Neighbourhoods, nearest
from scldm.evaluation.preparation import generator, split, stratified_choice
from scldm.evaluation.registry import PRIMARY_SPACE, Comparison, Figure, Group, Judge, Side
from scldm.evaluation.resampling import Estimate
from scldm.evaluation.values import FigureValues, Value

__all__ = ["Split", "score", "split_sides"]

# What an attacker gets of a system; more makes the attack slower and hardly better.
MAX_RELEASED = 20_000


@dataclass(frozen=True, eq=False)
class Split:
    """One division of the held-out cells, and as many cells of every system.

    Attributes
    ----------
    reference
        One half of the held-out cells.
    systems
        By name; ``ceiling`` is the other half.
    """

    reference: Side
    systems: Mapping[str, Side]


def split_sides(held_out: Side, systems: Mapping[str, Side], n_cells: int, n_splits: int, seed: int) -> list[Split]:
    """Divide the held-out cells in halves several times, and take as many cells of every system, by label.

    Parameters
    ----------
    held_out
        All real cells that may be compared.
    systems
        All cells of the others, by name; ``ceiling`` stands for the other half of the held-out cells.
    n_cells
        On either side.
    n_splits
        How often.
    seed
        Of the halves and of what is taken.
    """

    def take(side: Side, purpose: str) -> Side:
        if len(side.cells) == n_cells:
            return side
        return side.take(stratified_choice(side.cells.labels, n_cells, generator(seed, purpose)))

    splits = []
    for i in range(n_splits):
        halves = [held_out.take(part) for part in split(held_out.cells.labels, 2, generator(seed, f"split {i}"))]
        reference = take(halves[1], f"reference {i}")
        sides = {name: take(halves[0] if name == "ceiling" else side, f"{name} {i}") for name, side in systems.items()}
        splits.append(Split(reference, sides))
    return splits


def score(
    figures: Iterable[Figure],
    judge: Judge,
    splits: Sequence[Split],
    held_out: Side,
    systems: Mapping[str, Side],
    conditions: Sequence[str],
) -> tuple[FigureValues, ...]:
    """Compute every figure for every system.

    Parameters
    ----------
    figures
        What to compute.
    judge
        What was fitted on training cells.
    splits
        From `split_sides`; values are averaged over them.
    held_out, systems
        All cells, for figures that do not depend on their number.
    conditions
        The judged obs columns.

    Returns
    -------
    One row per figure and space or condition, by group, the primary space first. A figure that no system has is left
    out.
    """
    whole = {name: [Comparison(judge, held_out, side, release=side)] for name, side in systems.items()}
    released = {name: _released(side) for name, side in systems.items() if name != "ceiling"}
    compared: dict[str, list[Comparison]] = {name: [] for name in systems}
    for i, one in enumerate(splits):
        for name, comparison in _comparisons(judge, one, released, i).items():
            compared[name].append(comparison)
    rows = []
    for figure in figures:
        comparisons = whole if figure.all_cells else compared
        for argument in _arguments(figure, judge, conditions):
            values = {
                name: Value.of(_mean([figure.compute(comparison, *argument) for comparison in comparisons[name]]))
                for name in systems
            }
            if any(value is not None for value in values.values()):
                bracket = f"[{argument[0]}]" if argument and argument[0] != PRIMARY_SPACE else ""
                name = figure.name + bracket
                rows.append(FigureValues(name, figure.group, figure.direction, figure.description, values))
    return tuple(sorted(rows, key=lambda row: _place(row, judge)))


def _released(side: Side) -> Side:
    """Take the cells of a system that an attacker gets: all, or as many as are needed."""
    if len(side.cells) <= MAX_RELEASED:
        return side
    return side.take(stratified_choice(side.cells.labels, MAX_RELEASED, generator(0, "release")))


def _comparisons(judge: Judge, one: Split, released: Mapping[str, Side], number: int) -> dict[str, Comparison]:
    """Set every system beside the reference, whose own neighbours are sought once."""
    references = one.reference.features
    known = {space: nearest(points, points, N_NEIGHBOURS, exclude_self=True) for space, points in references.items()}
    return {
        name: Comparison(
            judge,
            one.reference,
            system,
            released.get(name, system),
            number,
            {
                space: Neighbourhoods.find(points, system.features[space], reference_to_reference=known[space])
                for space, points in references.items()
            },
        )
        for name, system in one.systems.items()
    }


def _arguments(figure: Figure, judge: Judge, conditions: Sequence[str]) -> list[tuple[str, ...]]:
    """List what a figure is computed for besides the comparison itself."""
    if figure.scope == "once":
        return [()]
    return [(name,) for name in (judge.spaces if figure.scope == "space" else conditions)]


def _mean(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """Average over the splits in which the figure could be computed."""
    found = [estimate for estimate in estimates if estimate is not None]
    return Estimate.mean(found) if found else None


def _place(row: FigureValues, judge: Judge) -> tuple[int, int]:
    """Sort rows by group, and the other spaces' behind those of the primary space; else as registered."""
    other_spaces = [f"[{space}]" for space in judge.spaces]
    space = next((i for i, bracket in enumerate(other_spaces) if row.name.endswith(bracket)), 0)
    return get_args(Group).index(row.group), space

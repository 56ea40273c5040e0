"""Compute metrics for every system: over equal numbers of cells in many halvings, and under the null hypothesis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from scldm.evaluation.compare import Comparison, Fitted, Masks, Side
from scldm.evaluation.draws import stratified_choice
from scldm.evaluation.halvings import Grouped, Halved, Independent, Paired, Scheme
from scldm.evaluation.labels import joint_labels
from scldm.evaluation.metrics.registry import Metric
from scldm.evaluation.null import Null, n_worse_of_real
from scldm.evaluation.records import GROUPS, Multiplicity, Record
from scldm.evaluation.systems import CEILING
from scldm.evaluation.verdict import half_sampling_margin, in_own_latents, is_worse
from scldm.seeds import numpy_rng

__all__ = ["Plan", "Scores", "score", "score_once"]

# What an attacker gets of a system; more makes the attack slower and hardly better.
MAX_RELEASED = 20_000
# Draws that are looked at together: all genes of a genome in so many are 10 MB.
MAX_ROWS = 100

Place = tuple[str, str | None]


@dataclass(frozen=True, eq=False)
class Plan:
    """How much is to be drawn, and from what.

    Attributes
    ----------
    n_cells
        How many cells are compared on either side.
    n_halvings, n_permutations
        How many halvings are averaged over, and how often cells are permuted.
    seed
        Of all draws.
    judged
        The systems that are held against real cells; the first of them stands for real cells where others are.
    paired
        Those of them whose cells were made from the held-out ones, in their order.
    groups
        The group of every held-out cell, if halves are to keep them whole.
    """

    n_cells: int
    n_halvings: int
    n_permutations: int
    seed: int
    judged: tuple[str, ...] = ()
    paired: frozenset[str] = frozenset()
    groups: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """The numbers of all systems, how many of them chance explains, and the cells of the first halving by system."""

    records: tuple[Record, ...]
    multiplicity: tuple[Multiplicity, ...]
    drawn: Mapping[str, Side]
    reference: Side


def score(
    metrics: Iterable[Metric],
    fitted: Fitted,
    held_out: Side,
    systems: Mapping[str, Side],
    conditions: Sequence[str],
    plan: Plan,
) -> Scores:
    """Compute every metric for every system, and for the judged ones what real cells would score.

    Records come by group, the primary space first; those of one metric and space or condition follow each other.
    """
    rows = _rows(metrics, list(fitted.spaces), conditions)
    held_out, kept = _held_out(held_out, plan)
    values: dict[str, dict[Place, np.ndarray]] = {}
    nulls: dict[str, dict[Place, Null]] = {}
    drawn: dict[str, Side] = {}
    reference = held_out
    for name, side in systems.items():
        pool, scheme = _pool(held_out, kept, side, name, plan)
        halved = scheme.halvings(plan.n_halvings)
        chosen = halved.ceiling if name == CEILING else halved.system
        # what was made from the reference itself would give that away: of pairs, only the counterparts are released
        release = None if name == CEILING or name in plan.paired else _released(side, plan.seed)

        def compare(system: Masks, reference: Masks, pool: Side = pool, release: Side | None = release) -> Comparison:
            return Comparison(fitted, pool, system, reference, held_out, release, plan.seed)

        values[name] = _values(rows, compare, chosen, halved.reference)
        drawn[name] = pool.take(np.flatnonzero(chosen[0]))
        if name == CEILING:
            reference = pool.take(np.flatnonzero(halved.reference[0]))
        if name in plan.judged:
            nulls[name] = _nulls(rows, compare, scheme, halved, plan)
    return Scores(
        tuple(_records(rows, values, nulls, systems)),
        tuple(_multiplicity(name, rows, values, found) for name, found in nulls.items()),
        drawn,
        reference,
    )


def score_once(
    metrics: Iterable[Metric],
    fitted: Fitted,
    real: Side,
    systems: Mapping[str, Side],
    n_cells: int,
    seed: int,
) -> Scores:
    """Compute every metric once for every system, beside as many real cells: no halves, no ceiling, no verdict."""
    rows = _rows(metrics, list(fitted.spaces), ())
    reference = _choose(real, n_cells, numpy_rng(seed, "reference"))
    values, drawn = {}, {}
    for name, side in systems.items():
        drawn[name] = _choose(side, n_cells, numpy_rng(seed, name))
        pool = drawn[name].and_then(reference)
        mask = (np.arange(len(pool)) < len(drawn[name]))[None]
        comparison = Comparison(fitted, pool, mask, ~mask, real, seed=seed)
        values[name] = _compute(rows, comparison)
    return Scores(tuple(_records(rows, values, {}, systems)), (), drawn, reference)


def _held_out(held_out: Side, plan: Plan) -> tuple[Side, np.ndarray]:
    """Take as many held-out cells as the two halves have; of grouped ones, whose halves are uneven, all."""
    every = np.arange(len(held_out))
    if plan.groups is None and len(held_out) > 2 * plan.n_cells:
        every = stratified_choice(
            joint_labels(held_out.cells.labels), 2 * plan.n_cells, numpy_rng(plan.seed, "held-out cells")
        )
        return held_out.take(every), every
    return held_out, every


def _pool(held_out: Side, kept: np.ndarray, side: Side, name: str, plan: Plan) -> tuple[Side, Scheme]:
    """Put the cells of a system, at most as many as are held out, before the held-out ones; say how they are drawn."""
    if name == CEILING:
        own = side.take(np.arange(0))
    elif name in plan.paired:
        own = side.take(kept)
    else:
        own = _choose(side, 2 * plan.n_cells, numpy_rng(plan.seed, f"cells of {name}"))
    # the ceiling has no cells of its own: what is drawn for the system is not looked at
    cells = held_out if name == CEILING else own.and_then(held_out)
    codes = _codes(own, held_out)
    size = (len(own), len(held_out), plan.n_cells, codes, plan.seed)
    if name in plan.paired:
        return cells, Paired(*size, plan.groups)
    if plan.groups is not None:
        return cells, Grouped(*size, plan.groups)
    return cells, Independent(*size)


def _codes(system: Side, held_out: Side) -> np.ndarray:
    """Give combinations of labels in a pool a number; those of a system that lacks a column are of their own."""
    own, real = system.cells.labels, held_out.cells.labels
    if len(system) and list(own) == list(real):
        return joint_labels(pd.concat([own, real], ignore_index=True))
    codes = joint_labels(real)
    return np.concatenate([joint_labels(own) + codes.max(initial=0) + 1, codes])


def _values(
    rows: Sequence[tuple[Metric, str | None]], compare: Callable[[Masks, Masks], Comparison], system: Masks, real: Masks
) -> dict[Place, np.ndarray]:
    """Compute all metrics for every halving, those that take long for the first ones only."""
    found: dict[Place, np.ndarray] = {}
    for n_halvings, some in _by_halvings(rows, len(system)).items():
        found |= _compute(some, compare(system[:n_halvings], real[:n_halvings]))
    return found


def _nulls(
    rows: Sequence[tuple[Metric, str | None]],
    compare: Callable[[Masks, Masks], Comparison],
    scheme: Scheme,
    halved: Halved,
    plan: Plan,
) -> dict[Place, Null]:
    """Compute the null distribution of every metric."""
    found: dict[Place, Null] = {}
    grouped: defaultdict[tuple[int, int], list[tuple[Metric, str | None]]] = defaultdict(list)
    for metric, argument in rows:
        n_halvings = min(plan.n_halvings, metric.max_halvings or plan.n_halvings)
        if metric.null is not None:
            comparison = compare(halved.system[:n_halvings], halved.reference[:n_halvings])
            differences = metric.null(comparison, plan.n_permutations)
            if differences is not None:
                found[metric.info.name, argument] = Null(differences, metric.info.direction)
        elif not in_own_latents(metric.info, argument):
            n_permutations = min(plan.n_permutations, metric.max_permutations or plan.n_permutations)
            grouped[n_halvings, n_permutations].append((metric, argument))
    for (n_halvings, n_permutations), some in grouped.items():
        differences_by_place = _differences(some, compare, scheme, n_halvings, n_permutations)
        for metric, argument in some:
            differences = differences_by_place.get((metric.info.name, argument))
            if differences is not None and np.isfinite(differences).all():
                found[metric.info.name, argument] = Null(differences, metric.info.direction)
    return found


def _differences(
    rows: Sequence[tuple[Metric, str | None]],
    compare: Callable[[Masks, Masks], Comparison],
    scheme: Scheme,
    n_halvings: int,
    n_permutations: int,
) -> dict[Place, Float[np.ndarray, " permutations"]]:
    """Compute (system - ceiling) of every metric in every permutation, some of them together."""
    grouped = isinstance(scheme, Grouped)
    rows_each = 1 if grouped else 2 * n_halvings
    together = max(MAX_ROWS // rows_each, 1)
    found: defaultdict[Place, list[np.ndarray]] = defaultdict(list)
    missing: set[Place] = set()
    for start in range(0, n_permutations, together):
        halves = list(scheme.permuted(n_halvings, range(start, min(start + together, n_permutations))))
        system, ceiling, reference = (
            np.concatenate([getattr(one, side) for one in halves]) for side in ("system", "ceiling", "reference")
        )
        if not grouped:
            system, reference = np.concatenate([system, ceiling]), np.concatenate([reference, reference])
        values = _compute(rows, compare(system, reference))
        for metric, argument in rows:
            place = metric.info.name, argument
            if place not in values:
                missing.add(place)
            elif grouped:
                found[place].append(values[place])
            else:
                of_system, of_ceiling = values[place].reshape(2, len(halves), -1).mean(axis=2)
                found[place].append(of_system - of_ceiling)
    differences = {place: np.concatenate(parts) for place, parts in found.items() if place not in missing}
    # of groups, each is what one half scores against other groups, held against what halves score on average
    return {place: one - one.mean() for place, one in differences.items()} if grouped else differences


def _compute(rows: Sequence[tuple[Metric, str | None]], comparison: Comparison) -> dict[Place, np.ndarray]:
    found = {}
    for metric, argument in rows:
        values = metric.compute(comparison, *([] if argument is None else [argument]))
        if values is not None:
            found[metric.info.name, argument] = np.asarray(values, dtype=np.float64)
    return found


def _by_halvings(
    rows: Sequence[tuple[Metric, str | None]], n_halvings: int
) -> dict[int, list[tuple[Metric, str | None]]]:
    """Gather the metrics that are averaged over as many halvings."""
    found: dict[int, list[tuple[Metric, str | None]]] = {}
    for metric, argument in rows:
        found.setdefault(min(n_halvings, metric.max_halvings or n_halvings), []).append((metric, argument))
    return found


def _records(
    rows: Sequence[tuple[Metric, str | None]],
    values: Mapping[str, Mapping[Place, np.ndarray]],
    nulls: Mapping[str, Mapping[Place, Null]],
    systems: Iterable[str],
) -> Iterable[Record]:
    """Make the records, row by row, system by system; what is not finite is left out."""
    for metric, argument in rows:
        place = metric.info.name, argument
        space, condition = (argument, None) if metric.scope == "space" else (None, argument)
        expected = _expected(metric, place, values)
        for name in systems:
            value = _mean(values[name].get(place))
            if value is None:
                continue
            halvings = values[name][place]
            null = nulls.get(name, {}).get(place)
            # what is not judged itself is set against what real cells would score in the place of the first that is
            like = null or next((found[place] for found in nulls.values() if place in found), None)
            low, high = (None, None) if like is None or expected is None else like.range
            margin = half_sampling_margin(halvings)
            yield Record(
                metric.info.name,
                name,
                value,
                None if margin is None else value - margin,
                None if margin is None else value + margin,
                space,
                condition,
                real_low=None if low is None or expected is None else expected + low,
                real_high=None if high is None or expected is None else expected + high,
                p_value=None if null is None or expected is None else null.p_value(value - expected),
                halvings=tuple(float(number) for number in halvings) if len(halvings) > 1 else (),
            )


def _multiplicity(
    name: str,
    rows: Sequence[tuple[Metric, str | None]],
    values: Mapping[str, Mapping[Place, np.ndarray]],
    nulls: Mapping[Place, Null],
) -> Multiplicity:
    """Count the metrics that call a system worse than real, and how many of them chance explains."""
    worse, judged = 0, []
    for metric, argument in rows:
        place = metric.info.name, argument
        value, expected = _mean(values[name].get(place)), _expected(metric, place, values)
        if place not in nulls or value is None or expected is None:
            continue
        judged.append(nulls[place])
        worse += is_worse(nulls[place].range, value - expected)
    return Multiplicity(name, len(judged), worse, n_worse_of_real(judged))


def _expected(metric: Metric, place: Place, values: Mapping[str, Mapping[Place, np.ndarray]]) -> float | None:
    """Give what a difference is counted from: the ceiling, but for a metric with a null of its own."""
    return metric.expected if metric.null is not None else _mean(values.get(CEILING, {}).get(place))


def _mean(values: np.ndarray | None) -> float | None:
    """Average over halvings; None where one is missing or not finite."""
    return None if values is None or not np.isfinite(values).all() else float(values.mean())


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


def _choose(side: Side, n_cells: int, rng: np.random.Generator) -> Side:
    """Draw so many cells of a side, by label, or all if there are no more."""
    if len(side) <= n_cells:
        return side
    return side.take(stratified_choice(joint_labels(side.cells.labels), n_cells, rng))


def _released(side: Side, seed: int) -> Side:
    """Take the cells of a system that an attacker gets: all, or as many as are needed."""
    return _choose(side, MAX_RELEASED, numpy_rng(seed, "release"))

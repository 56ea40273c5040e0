"""What the numbers say, in words: one verdict per topic and generator, for a reader who knows biology, not metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from scldm.evaluation.labels import COMBINATION, LabelFidelity
from scldm.evaluation.metrics import METRICS, Limit
from scldm.evaluation.metrics.registry import TOPICS, fold
from scldm.evaluation.null import LEVEL
from scldm.evaluation.records import PRIMARY_SPACE, Multiplicity, Record, Row
from scldm.evaluation.systems import CEILING, Systems
from scldm.evaluation.verdict import at_ceiling, in_own_space, is_behind

__all__ = ["LEVELS", "Finding", "Level", "find"]

Level = Literal["problem", "warning", "note", "good"]
#: The order in which findings are read.
LEVELS: tuple[Level, ...] = get_args(Level)

# Labels named in a sentence, at most.
MAX_NAMED = 5
# Agreement and depth of fewer generated cells of a label are off by chance too easily.
MIN_GENERATED = 20
# The median depth of a label is noisy, and has no interval: only half or double is held against it.
DEPTH_OF_LABEL = fold(2.0, math.inf)
# Agreement of a label: the difference that is named, and the one at which labels have failed.
GAP_WARNING, GAP_PROBLEM = 0.10, 0.30
# Behind a baseline, which knows no biology, on this share of the metrics the generator has failed.
BEHIND_PROBLEM = 0.5
# With fewer compared cells the intervals are so wide that to find nothing says little.
MIN_COMPARED = 100
# Of real held-out cells hardly one is equal to a training cell by chance, unless depth is very low.
MAX_COPIED_REAL = 0.05


@dataclass(frozen=True)
class Finding:
    """One verdict.

    Attributes
    ----------
    level
        How bad it is. A note says where cells are worse than real ones by less than a limit, or by no more than may
        be chance with as many metrics.
    topic
        What it is about: ``memorisation``, ``modes``, ``distances``, ``labels``, ``correlations``, ``genes``,
        ``zeros``, ``depth``, ``baselines`` or ``cells``.
    system
        The generator.
    sentence
        The verdict with its numbers.
    """

    level: Level
    topic: str
    system: str
    sentence: str


def find(
    rows: Sequence[Row],
    labels: Sequence[LabelFidelity],
    systems: Systems,
    multiplicity: Sequence[Multiplicity] = (),
    n_cells: int | None = None,
) -> tuple[Finding, ...]:
    """Say for every generator what is wrong with it, and what is right.

    The rule is that of the table (see `scldm.evaluation.verdict.at_ceiling`). A metric is held against a generator
    where that calls it worse than real cells, if it is worse by more than a limit *and* chance does not explain it with
    as many metrics as are judged: its p-value is below 5 % divided by their number (Bonferroni's correction). Where it
    might, but much is wrong, that is a warning; what else is worse is a note, and nothing good is said of its topic.
    What could not be computed is passed over.

    With fewer than 100 compared cells on either side nothing good is said. Findings come generator by generator,
    problems first, then warnings, notes, and what is good.
    """
    n_judged = {one.system: one.n_judged for one in multiplicity}
    found: list[Finding] = []
    for system in systems.generators:
        own = [
            *_trained_on_real(rows, system),
            *_beyond_limits(rows, system, max(n_judged.get(system, 1), 1)),
            *_judge_labels(labels, system),
            *_behind(rows, system, systems),
        ]
        if n_cells is not None and n_cells < MIN_COMPARED:
            own.append(_too_few(n_cells, system))
        else:
            own += _praise(rows, system, systems, own)
        own += [_counted(one) for one in multiplicity if one.system == system and one.n_judged]
        found += sorted(own, key=lambda finding: LEVELS.index(finding.level))
    return tuple(found)


def _trained_on_real(rows: Sequence[Row], system: str) -> list[Finding]:
    """Say that the held-out cells were not held out: many of them are training cells."""
    for row in rows:
        ceiling = row.values.get(CEILING)
        if row.info.name == "exact_duplicates" and ceiling is not None and ceiling.value > MAX_COPIED_REAL:
            sentence = (
                f"{ceiling.value:.1%} of the real cells are exact copies of training cells: they were not held out, so "
                "memorisation cannot be judged, and a generator that copies looks good in all other metrics."
            )
            return [Finding("problem", "memorisation", system, sentence)]
    return []


def _too_few(n_cells: int, system: str) -> Finding:
    sentence = (
        f"Only {n_cells} cells are compared on either side: differences that matter cannot be seen with so few cells "
        f"(at least {MIN_COMPARED} are needed), so that nothing is said of what is as in real cells."
    )
    return Finding("warning", "cells", system, sentence)


def _limited(rows: Sequence[Row], system: str) -> Iterator[tuple[Limit, Row, Record, Record]]:
    """List all limits that apply, by topic, with the values of the system and the ceiling."""
    limits = [(limit, name) for name, metric in METRICS.items() for limit in metric.limits]
    topics = list(TOPICS)
    for limit, name in sorted(limits, key=lambda pair: (topics.index(pair[0].topic), pair[0].order)):
        for row in rows:
            # distances in spaces other than the primary one repeat what it says
            if row.info.name != name or row.space not in (None, PRIMARY_SPACE):
                continue
            own, ceiling = row.values.get(system), row.values.get(CEILING)
            if own is not None and ceiling is not None and ceiling.value >= limit.least_ceiling:
                yield limit, row, own, ceiling


def _beyond_limits(rows: Sequence[Row], system: str, n_judged: int) -> list[Finding]:
    """Say where a generator is worse than real cells, and by how much; several limits of a metric say it once."""
    found: list[Finding] = []
    small: dict[str, dict[str, str]] = {}
    for limit, row, own, ceiling in _limited(rows, system):
        loss = limit.loss.of(own.value, ceiling.value)
        if at_ceiling(row, system) is not False:
            continue
        by_chance = own.p_value is None or own.p_value * n_judged > LEVEL
        grave = loss > limit.loss.problem
        if grave or (loss > limit.loss.warning and not by_chance):
            level: Level = "problem" if grave and not by_chance else "warning"
            sentence = limit.sentence.format(value=own.value, ceiling=ceiling.value, loss=loss, condition=row.condition)
            found.append(Finding(level, limit.topic, system, sentence))
        elif limit.loss.of(own.value, ceiling.value) > limit.loss.of(ceiling.value, ceiling.value):
            small.setdefault(limit.topic, {})[row.label] = f"{row.info.display_name} {own.value:.3g} ({_real(own)})"
    criticised = {finding.topic for finding in found}
    for topic, texts in small.items():
        if topic not in criticised:
            sentence = (
                f"Slightly worse than real cells, or by chance: {_listed(list(texts.values()))}. Each metric says this "
                f"of real cells in {LEVEL:.0%} of evaluations."
            )
            found.append(Finding("note", topic, system, sentence))
    return found


def _real(record: Record) -> str:
    """Say what real cells would score."""
    low, high = record.real_range or (None, None)
    if low is None:
        return f"real cells: up to {high:.3g}"
    return f"real cells: {low:.3g} or more" if high is None else f"real cells: {low:.3g} to {high:.3g}"


def _counted(one: Multiplicity) -> Finding:
    """Say how many metrics call a generator worse, and how many of them chance explains."""
    count = (
        f"{one.n_worse} of {one.n_judged} metrics call the cells worse than real ones; of real cells, up to "
        f"{one.n_worse_of_real} do so in 19 of 20 evaluations."
    )
    if one.beyond_chance:
        return Finding("note", "cells", one.system, count)
    return Finding("good", "cells", one.system, f"As a whole, not told from real cells: {count}")


def _judge_labels(labels: Sequence[LabelFidelity], system: str) -> list[Finding]:
    """Name the labels that are missing, look like others, or have the wrong depth."""
    found = []
    for condition in dict.fromkeys(row.condition for row in labels):
        rows = [row for row in labels if row.condition == condition]
        if not sum(row.n_generated.get(system, 0) for row in rows):
            continue  # no labels at all: a note says so
        found += _missing(rows, system)
        if COMBINATION not in condition:
            judged = [row for row in rows if not row.rare and row.n_generated.get(system, 0) >= MIN_GENERATED]
            found += _gaps(judged, system) + _depths(judged, system)
    return found


def _missing(rows: Sequence[LabelFidelity], system: str) -> list[Finding]:
    """Name labels that real cells have and no generated cell does."""
    missing = [row for row in rows if row.n_real and not row.n_generated.get(system, 0)]
    frequent = [row for row in missing if not row.rare]
    named = frequent or missing
    if not named or (not frequent and COMBINATION in rows[0].condition):  # rare combinations are missed by chance
        return []
    level: Level = "problem" if frequent and COMBINATION not in rows[0].condition else "warning"
    n_labels = sum(1 for row in rows if row.n_real)
    names = _listed([f"'{row.label}' ({row.n_real} held-out cells)" for row in named])
    sentence = f"No cell was generated for {len(missing)} of the {n_labels} labels of {rows[0].condition}: {names}."
    return [Finding(level, "modes", system, sentence)]


def _gaps(rows: Sequence[LabelFidelity], system: str) -> list[Finding]:
    """Name labels that are recognised much more or less often than in real cells, and not by chance among as many."""
    gaps: list[tuple[float, str]] = []
    for row in rows:
        own, real = row.agreement.get(system), row.agreement.get("real")
        p_value = row.p_value(system)
        if own is not None and real is not None and p_value is not None and p_value * len(rows) <= LEVEL:
            text = f"'{row.label}' {own.value:.0%} (real cells: {real.value:.0%})"
            gaps.append((abs(own.value - real.value), text))
    off = sorted((gap for gap in gaps if gap[0] > GAP_WARNING), reverse=True)
    if not off:
        return []
    level: Level = "problem" if off[0][0] > GAP_PROBLEM else "warning"
    sentence = f"Of {rows[0].condition}, cells are recognised unlike real ones in {_listed([text for _, text in off])}."
    return [Finding(level, "labels", system, sentence)]


def _depths(rows: Sequence[LabelFidelity], system: str) -> list[Finding]:
    """Name labels whose cells are much deeper or shallower than real ones."""
    depths = [(row.label, depth) for row in rows if (depth := row.depth_ratio.get(system)) is not None]
    off = [
        f"'{label}' {depth:.2f}" for label, depth in depths if DEPTH_OF_LABEL.of(depth, 1.0) > DEPTH_OF_LABEL.warning
    ]
    if not off:
        return []
    sentence = (
        f"The median depth of some labels of {rows[0].condition}, over that of real cells, is off: {_listed(off)}."
    )
    return [Finding("warning", "depth", system, sentence)]


def _behind(rows: Sequence[Row], system: str, systems: Systems) -> list[Finding]:
    """Say where a baseline does better."""
    found = []
    for baseline in systems.baselines:
        compared = [row for row in rows if baseline in row.values and _comparable(row, system)]
        behind = [row.label for row in compared if is_behind(row, system, baseline)]
        if behind:
            level: Level = "problem" if len(behind) > BEHIND_PROBLEM * len(compared) else "warning"
            sentence = (
                f"Farther from real cells than the baseline {systems.named(baseline).display_name} on {len(behind)} of "
                f"{len(compared)} metrics: {_listed(behind)}."
            )
            found.append(Finding(level, "baselines", system, sentence))
    return found


def _comparable(row: Row, system: str) -> bool:
    """Tell whether a metric can be held against a system.

    Memorisation cannot, of which simple models do none, nor can distances in the model's own latent space.
    """
    if row.info.group == "memorisation" or in_own_space(row):
        return False
    return system in row.values and CEILING in row.values


def _praise(rows: Sequence[Row], system: str, systems: Systems, found: Sequence[Finding]) -> list[Finding]:
    """Say for every topic that was judged, and in which nothing was found, that it is as in real cells."""
    criticised = {finding.topic for finding in found}
    numbers: dict[str, list[str]] = {topic: [] for topic in TOPICS}
    for limit, row, own, ceiling in _limited(rows, system):
        if limit.short:
            name = f"{limit.short} of {row.condition}" if row.condition else limit.short
            numbers[limit.topic].append(f"{name} {own.value:.3g} (real: {ceiling.value:.3g})")
    praise = [
        Finding("good", topic, system, f"{TOPICS[topic]}: {', '.join(dict.fromkeys(texts))}.")
        for topic, texts in numbers.items()
        if texts and topic not in criticised
    ]
    baselines = systems.baselines
    n_compared = sum(_comparable(row, system) and any(name in row.values for name in baselines) for row in rows)
    if n_compared and "baselines" not in criticised:
        names = " and ".join(systems.named(name).display_name for name in baselines)
        sentence = f"On none of {n_compared} metrics clearly farther from real cells than the baselines ({names})."
        praise.append(Finding("good", "baselines", system, sentence))
    return praise


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")

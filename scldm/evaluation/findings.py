"""What the numbers say, in words: one verdict per topic and generator, for a reader who knows biology, not metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from scldm.evaluation.labels import COMBINATION, LabelFidelity
from scldm.evaluation.rules import RULES, TOPICS, Rule
from scldm.evaluation.standing import in_own_space
from scldm.evaluation.values import FigureValues, Value

__all__ = ["Finding", "find"]

Level = Literal["problem", "warning", "good"]

# Among many figures and labels one is always off by chance: a difference has to be this many times what 95 % intervals
# explain, which is about three standard errors.
CHANCE_OF_MANY = 1.5
# Labels named in a sentence, at most.
MAX_NAMED = 5
# Agreement and depth of fewer generated cells of a label are off by chance too easily.
MIN_GENERATED = 20
# The median depth of a label is noisy, and has no interval: only half or double is held against it.
DEPTH_OF_LABEL = 2.0
# Agreement of a label: the difference that is named, and the one at which labels have failed.
GAP_WARNING, GAP_PROBLEM = 0.10, 0.30
# Behind a baseline, which knows no biology, on this share of the figures the generator has failed.
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
        How bad it is.
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
    figures: Sequence[FigureValues],
    labels: Sequence[LabelFidelity],
    generators: Sequence[str],
    systems: Iterable[str],
    n_cells: int | None = None,
) -> tuple[Finding, ...]:
    """Say for every generator what is wrong with it, and what is right.

    A figure is held against a generator only where it is worse than the ceiling by more than a limit *and* by more
    than chance explains, by both intervals. What could not be computed is passed over.

    Parameters
    ----------
    figures
        All figures with the values of ``ceiling``, the generators and the baselines.
    labels
        Label by label.
    generators
        The systems to judge.
    systems
        Names of all systems; those that are neither judged nor ``ceiling`` or ``memoriser`` are baselines.
    n_cells
        How many cells are compared on either side; of fewer than 100 nothing good is said. None if that is not known.

    Returns
    -------
    Generator by generator, problems first, then warnings, then what is good.
    """
    baselines = [name for name in systems if name not in {"ceiling", "memoriser", *generators}]
    found: list[Finding] = []
    for system in generators:
        own = [
            *_trained_on_real(figures, system),
            *_apply_rules(figures, system),
            *_judge_labels(labels, system),
            *_behind(figures, system, baselines),
        ]
        if n_cells is not None and n_cells < MIN_COMPARED:
            own.append(_too_few(n_cells, system))
        else:
            own += _praise(figures, system, baselines, own)
        found += sorted(own, key=lambda finding: _ORDER[finding.level])
    return tuple(found)


_ORDER: dict[Level, int] = {"problem": 0, "warning": 1, "good": 2}


def _trained_on_real(figures: Sequence[FigureValues], system: str) -> list[Finding]:
    """Say that the held-out cells were not held out: many of them are training cells."""
    for row in figures:
        ceiling = row.values.get("ceiling")
        if row.name == "exact_duplicates" and ceiling is not None and ceiling.value > MAX_COPIED_REAL:
            sentence = (
                f"{ceiling.value:.1%} of the real cells are exact copies of training cells: they were not held out, so "
                "memorisation cannot be judged, and a generator that copies looks good in all other figures."
            )
            return [Finding("problem", "memorisation", system, sentence)]
    return []


def _too_few(n_cells: int, system: str) -> Finding:
    """Say that with so few cells finding nothing means nothing."""
    sentence = (
        f"Only {n_cells} cells are compared on either side: differences that matter cannot be seen with so few cells "
        f"(at least {MIN_COMPARED} are needed), so that nothing is said of what is as in real cells."
    )
    return Finding("warning", "cells", system, sentence)


def _matching(figures: Sequence[FigureValues], rule: Rule, system: str) -> list[tuple[str, Value, Value]]:
    """Find the figures that a rule is about: the condition, and the values of the system and the ceiling."""
    found = []
    for row in figures:
        name, _, condition = row.name.removesuffix("]").partition("[")
        own, ceiling = row.values.get(system), row.values.get("ceiling")
        # distances in spaces other than the primary one repeat what it says
        applies = name == rule.figure and bool(condition) == rule.per_condition
        if applies and own is not None and ceiling is not None and ceiling.value >= rule.least_ceiling:
            found.append((condition, own, ceiling))
    return found


def _apply_rules(figures: Sequence[FigureValues], system: str) -> list[Finding]:
    """Hold every rule against a system."""
    found = []
    for rule in RULES:
        for condition, own, ceiling in _matching(figures, rule, system):
            loss = rule.loss(own.value, ceiling.value)
            if loss > rule.warning and _beyond_chance(own, ceiling):
                level: Level = "problem" if loss > rule.problem else "warning"
                sentence = rule.sentence.format(value=own.value, ceiling=ceiling.value, loss=loss, condition=condition)
                found.append(Finding(level, rule.topic, system, sentence))
    return found


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
    """Name labels that are recognised much more or less often than in real cells."""
    gaps: list[tuple[float, str]] = []
    for row in rows:
        own, real = row.agreement.get(system), row.agreement.get("real")
        if own is not None and real is not None and _beyond_chance(own, real):
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
    ratios = [(row.label, ratio) for row in rows if (ratio := row.depth_ratio.get(system)) is not None]
    off = [f"'{label}' {ratio:.2f}" for label, ratio in ratios if _fold(ratio, 1.0) > DEPTH_OF_LABEL]
    if not off:
        return []
    sentence = (
        f"The median depth of some labels of {rows[0].condition}, over that of real cells, is off: {_listed(off)}."
    )
    return [Finding("warning", "depth", system, sentence)]


def _behind(figures: Sequence[FigureValues], system: str, baselines: Sequence[str]) -> list[Finding]:
    """Say where a baseline does better."""
    found = []
    for baseline in baselines:
        compared = [row for row in figures if row.values.get(baseline) and _comparable(row, system)]
        behind = [row.name for row in compared if _is_behind(row, system, baseline)]
        if behind:
            level: Level = "problem" if len(behind) > BEHIND_PROBLEM * len(compared) else "warning"
            sentence = (
                f"Farther from real cells than the baseline {_named(baseline)} on {len(behind)} of {len(compared)} "
                f"figures: {_listed(behind)}."
            )
            found.append(Finding(level, "baselines", system, sentence))
    return found


def _comparable(row: FigureValues, system: str) -> bool:
    """Tell whether a figure can be held against a system.

    Memorisation cannot, of which simple models do none, nor can distances in the model's own latent space.
    """
    if row.group == "memorisation" or in_own_space(row):
        return False
    return row.values.get(system) is not None and row.values.get("ceiling") is not None


def _is_behind(row: FigureValues, system: str, baseline: str) -> bool:
    """Tell whether a baseline is nearer to the ceiling than a system that misses it, by more than chance explains."""
    own, other, ceiling = (row.values[name] for name in (system, baseline, "ceiling"))
    assert own is not None
    assert other is not None
    assert ceiling is not None
    losses = [_loss(row, value.value, ceiling.value) for value in (own, other)]
    return losses[0] > max(losses[1], 0.0) and _beyond_chance(own, ceiling) and _beyond_chance(own, other)


def _loss(row: FigureValues, value: float, ceiling: float) -> float:
    """How much worse than the ceiling a value is."""
    if row.direction == "closest to ceiling":
        return abs(value - ceiling)
    return value - ceiling if row.direction == "lower" else ceiling - value


def _praise(
    figures: Sequence[FigureValues], system: str, baselines: Sequence[str], found: Sequence[Finding]
) -> list[Finding]:
    """Say for every topic that was judged, and in which nothing was found, that it is as in real cells."""
    criticised = {finding.topic for finding in found}
    praise = []
    for topic, opening in TOPICS.items():
        numbers = [
            f"{rule.short}{f' of {condition}' if condition else ''} {own.value:.3g} (real: {ceiling.value:.3g})"
            for rule in RULES
            if rule.topic == topic and rule.short
            for condition, own, ceiling in _matching(figures, rule, system)
        ]
        if numbers and topic not in criticised:
            praise.append(Finding("good", topic, system, f"{opening}: {', '.join(dict.fromkeys(numbers))}."))
    n_compared = sum(_comparable(row, system) and any(row.values.get(name) for name in baselines) for row in figures)
    if n_compared and "baselines" not in criticised:
        names = " and ".join(_named(name) for name in baselines)
        sentence = f"On none of {n_compared} figures clearly farther from real cells than the baselines ({names})."
        praise.append(Finding("good", "baselines", system, sentence))
    return praise


def _beyond_chance(one: Value, other: Value) -> bool:
    """Tell whether two values differ by clearly more than both intervals explain, taken as independent errors."""
    low, high = (one, other) if one.value <= other.value else (other, one)
    up = 0.0 if low.high is None else max(low.high - low.value, 0.0)
    down = 0.0 if high.low is None else max(high.value - high.low, 0.0)
    return high.value - low.value > CHANCE_OF_MANY * math.hypot(up, down)


def _fold(value: float, other: float) -> float:
    """By what factor two values differ, whichever is larger."""
    return max(value / other, other / value) if value > 0 and other > 0 else math.inf


def _named(system: str) -> str:
    """Name a system in words."""
    from scldm.evaluation.pictures.scene import display_name  # pictures load matplotlib

    return display_name(system)


def _listed(texts: Sequence[str]) -> str:
    """Join texts, the first few of them."""
    more = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")

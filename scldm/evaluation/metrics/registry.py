"""The registry of metrics: one decorated function each, which carries all that is known of its metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from scldm.evaluation.compare import Comparison, Rows
from scldm.evaluation.records import Direction, Group, MetricInfo, in_words

__all__ = ["METRICS", "TOPICS", "Limit", "Loss", "Metric", "Scope", "metric"]

Scope = Literal["once", "space", "condition"]
Compute = Callable[..., Rows | None]

#: What is said of a topic in which nothing was found; findings come in this order.
TOPICS = {
    "memorisation": "No sign of memorised training cells",
    "modes": "The variety of real cells is there",
    "distances": "Cells lie where real cells lie",
    "labels": "Labels are met as real cells meet them",
    "correlations": "Genes go together as in real cells",
    "genes": "Expression of genes and markers is as in real cells",
    "zeros": "Zeros are as frequent as in real cells",
    "depth": "Sequencing depth is that of real cells",
}


@dataclass(frozen=True)
class Loss:
    """How much worse a value is than the ceiling's, from both, and above what it is a warning or a problem."""

    of: Callable[[float, float], float]
    warning: float
    problem: float


@dataclass(frozen=True)
class Limit:
    """When a value is held against a generator, and the words for it.

    Attributes
    ----------
    topic
        One of `TOPICS`.
    loss
        How much worse than the ceiling's a value is, and may be: such as `less`, `times`.
    sentence
        The finding, with ``{value}``, ``{ceiling}``, ``{loss}`` and ``{condition}`` to fill in.
    short
        What to call the metric where nothing is wrong; empty where it goes without saying.
    least_ceiling
        With a lower value of the ceiling the limit is not applied: where two halves of the real cells hardly agree, a
        metric is mostly sampling noise.
    order
        Place among the limits of the topic; equal ones stand in the order of the table.
    """

    topic: str
    loss: Loss
    sentence: str
    short: str = ""
    least_ceiling: float = -math.inf
    order: int = 0


@dataclass(frozen=True)
class Metric:
    """A metric and all that is known of it.

    Attributes
    ----------
    info
        Name, group, direction and description.
    compute
        Gives a value for every draw of a `Comparison`; None if the cells do not allow it (such as a system without
        labels).
    scope
        How often it is computed: once, once for every space, or once for every judged condition; the name of the space
        or condition is the second argument.
    values
        Which values there are, in words.
    degenerate
        What it is where it says little, and where it is not computed.
    limits
        When values are held against a generator.
    max_halvings, max_permutations
        For a metric that takes long: no more than so many halvings are averaged over, and no more permutations of the
        cells are looked at.
    null
        For a metric whose null distribution other cells have to be exchanged for than those of the system and the
        held-out ones: gives the differences from the ceiling of ``expected``, from a `Comparison` and their number.
    expected
        The value that real cells have in expectation, which stands for the ceiling where there is a `null`.
    """

    info: MetricInfo
    compute: Compute
    scope: Scope = "once"
    values: str = ""
    degenerate: str = ""
    limits: tuple[Limit, ...] = ()
    max_halvings: int | None = None
    max_permutations: int | None = None
    null: Callable[[Comparison, int], Rows | None] | None = None
    expected: float = 0.0


#: All metrics by name, in the order of the table.
METRICS: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    group: Group,
    direction: Direction,
    description: str,
    display_name: str = "",
    scope: Scope = "once",
    values: str = "",
    degenerate: str = "",
    limits: Limit | tuple[Limit, ...] = (),
    max_halvings: int | None = None,
    max_permutations: int | None = None,
    null: Callable[[Comparison, int], Rows | None] | None = None,
    expected: float = 0.0,
) -> Callable[[Compute], Compute]:
    """Register a function of a `Comparison` as a metric: it is then in ``metrics.json``, the table and the page.

    See `Metric` and `MetricInfo` for the arguments; without a display name it is the name in words.

    Raises
    ------
    ValueError
        If there is already a metric of this name.
    """

    def register(compute: Compute) -> Compute:
        if name in METRICS:
            raise ValueError(f"there is already a metric named '{name}'")
        info = MetricInfo(name, display_name or in_words(name), group, direction, description)
        METRICS[name] = Metric(
            info,
            compute,
            scope,
            values,
            degenerate,
            limits if isinstance(limits, tuple) else (limits,),
            max_halvings,
            max_permutations,
            null,
            expected,
        )
        return compute

    return register


def more(warning: float, problem: float) -> Loss:
    """Measure how far a value is above the ceiling's."""
    return Loss(lambda value, ceiling: value - ceiling, warning, problem)


def less(warning: float, problem: float) -> Loss:
    """Measure how far a value is below the ceiling's."""
    return Loss(lambda value, ceiling: ceiling - value, warning, problem)


def lost(warning: float, problem: float) -> Loss:
    """Measure what share of the ceiling's value is lost."""
    return Loss(lambda value, ceiling: 1.0 - value / ceiling if ceiling > 0 else 0.0, warning, problem)


def times(warning: float, problem: float) -> Loss:
    """Measure how many times the ceiling's a value is."""
    return Loss(ratio, warning, problem)


def fold(warning: float, problem: float) -> Loss:
    """Measure by what factor a value differs from the ceiling's, up or down."""
    return Loss(lambda value, ceiling: max(ratio(value, ceiling), ratio(ceiling, value)), warning, problem)


def ratio(value: float, ceiling: float) -> float:
    """Divide a value by the ceiling's; more than nothing is infinitely many times nothing."""
    return value / ceiling if ceiling > 0 else math.inf if value > 0 else 1.0

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from scldm.evaluation.records import MetricInfo, Record, Row, Value
from scldm.evaluation.verdict import at_ceiling, beyond_chance, in_own_space, rank

Direction = Literal["lower", "higher", "closest to ceiling"]


def row(direction: Direction, **values: Value | float | None) -> Row:
    known = {name: Value(v) if isinstance(v, (int, float)) else v for name, v in values.items() if v is not None}
    records = {name: Record("recall", name, v.value, v.low, v.high) for name, v in known.items()}
    return Row(MetricInfo("recall", "Recall", "distances", direction, "what it is"), None, None, records)


@pytest.mark.parametrize(
    ("direction", "own", "expected"),
    [
        ("lower", 1.0, "ceiling"),
        ("lower", 0.5, "ceiling"),
        ("lower", 1.5, "between"),
        ("lower", 3.0, "between"),
        ("lower", 3.1, "behind"),
        ("higher", 1.0, "ceiling"),
        ("higher", 1.5, "ceiling"),
        ("higher", 0.5, "between"),
        ("higher", -1.1, "behind"),
        ("closest to ceiling", 1.0, "ceiling"),
        ("closest to ceiling", 1.5, "between"),
        ("closest to ceiling", 0.5, "between"),
        ("closest to ceiling", 3.1, "behind"),
        ("closest to ceiling", -1.1, "behind"),
    ],
)
def test_rank_by_direction(direction: Direction, own: float, expected: str) -> None:
    # of the two baselines, three and minus one are the best on either side: both are 2 from the ceiling
    best, worst = (3.0, 9.0) if direction != "higher" else (-1.0, -9.0)
    compared = row(direction, ceiling=1.0, generated=own, nb=worst, gaussian=best, unknown=None)
    assert rank(compared, "generated", ["nb", "gaussian", "unknown"]) == expected


def test_intervals_that_face_each_other_decide_about_the_ceiling() -> None:
    ceiling = Value(1.0, 0.0, 1.3)  # the half-width towards higher values is .3
    near, far = Value(1.49, 1.09, 1.5), Value(1.51, 1.11, 9.0)  # .4 towards the ceiling: .5 together
    assert rank(row("lower", ceiling=ceiling, generated=near, nb=5.0), "generated", ["nb"]) == "ceiling"
    assert rank(row("lower", ceiling=ceiling, generated=far, nb=5.0), "generated", ["nb"]) == "between"
    below = Value(0.0, -5.0, 0.01)
    compared = row("closest to ceiling", ceiling=Value(1.0, 0.99, 9.0), generated=below, nb=5.0)
    assert rank(compared, "generated", ["nb"]) == "between"
    assert rank(compared, "generated", []) is None


def test_a_baseline_at_the_ceiling_leaves_no_room_between() -> None:
    assert rank(row("lower", ceiling=1.0, generated=1.5, nb=0.9), "generated", ["nb"]) == "behind"


def test_a_rank_needs_values() -> None:
    assert rank(row("lower", ceiling=None, generated=1.0, nb=2.0), "generated", ["nb"]) is None
    assert rank(row("lower", ceiling=1.0, generated=None, nb=2.0), "generated", ["nb"]) is None
    assert rank(row("lower", generated=1.0, nb=2.0), "generated", ["nb"]) is None
    assert rank(row("lower", ceiling=1.0, generated=float("nan"), nb=2.0), "generated", ["nb"]) is None
    assert rank(row("lower", ceiling=1.0, generated=1.0), "generated", []) == "ceiling"


def test_only_distances_in_the_latent_space_are_in_the_own_space_of_a_model() -> None:
    distance = row("lower", ceiling=1.0)
    assert in_own_space(replace(distance, space="latent"))
    assert not in_own_space(replace(distance, space="pca"))
    labels = MetricInfo("label_agreement", "Label agreement", "labels", "lower", "")
    assert not in_own_space(Row(labels, None, "latent", distance.values))


def test_the_ceiling_is_the_same_for_generators_and_baselines() -> None:
    compared = row(
        "lower", ceiling=Value(1.0, 0.7, 1.3), ours=Value(1.49, 1.09, 1.5), nb=Value(1.51, 1.11, 9.0), x=None
    )
    assert [at_ceiling(compared, name) for name in ("ceiling", "ours", "nb", "x", "y")] == [
        True,
        True,
        False,
        None,
        None,
    ]


def test_a_difference_beyond_chance_is_half_as_much_again_as_both_intervals_explain() -> None:
    # the half-widths that face each other are .3 and .4: .5 together, .75 with the allowance for many comparisons
    low, high = Value(1.0, 0.0, 1.3), Record("recall", "ours", 1.76, 1.36, 9.0)
    assert beyond_chance(low, high)
    assert beyond_chance(high, low)
    assert not beyond_chance(low, Value(1.74, 1.34, 9.0))
    assert beyond_chance(Value(1.0), Value(1.0001))
    assert not beyond_chance(Value(1.0), Value(1.0))

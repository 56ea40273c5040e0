from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from scldm.evaluation.records import MetricInfo, Record, Row
from scldm.evaluation.verdict import at_ceiling, differ, half_sampling_margin, in_own_space, is_behind, is_worse, rank

Direction = Literal["lower", "higher", "closest to ceiling"]


def row(direction: Direction, width: float | None = 0.0, **values: float | None) -> Row:
    """Make a row in which real cells score the ceiling's value, give or take the width; None: it is not known."""
    ceiling = values.get("ceiling")
    low = None if ceiling is None or width is None or direction == "lower" else ceiling - width
    high = None if ceiling is None or width is None or direction == "higher" else ceiling + width
    records = {
        name: Record("recall", name, value, real_low=low, real_high=high)
        for name, value in values.items()
        if value is not None
    }
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


def test_what_real_cells_score_decides_about_the_ceiling() -> None:
    for own, expected in ((1.5, "ceiling"), (1.51, "between"), (-9.0, "ceiling")):
        assert rank(row("lower", width=0.5, ceiling=1.0, generated=own, nb=5.0), "generated", ["nb"]) == expected
    for own, expected in ((1.5, "ceiling"), (0.49, "between"), (0.5, "ceiling"), (1.51, "between")):
        compared = row("closest to ceiling", width=0.5, ceiling=1.0, generated=own, nb=5.0)
        assert rank(compared, "generated", ["nb"]) == expected
        assert rank(compared, "generated", []) == ("ceiling" if expected == "ceiling" else None)


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
    compared = row("lower", width=0.5, ceiling=1.0, ours=1.49, nb=1.51, x=None)
    found = [at_ceiling(compared, name) for name in ("ceiling", "ours", "nb", "x", "y")]
    assert found == [True, True, False, None, None]


def test_nothing_is_at_the_ceiling_where_it_is_not_known_what_real_cells_score() -> None:
    compared = row("lower", width=None, ceiling=1.0, ours=1.0, nb=3.0)
    assert at_ceiling(compared, "ours") is None
    assert rank(compared, "ours", ["nb"]) is None


def test_rounding_is_not_worse() -> None:
    assert not is_worse((0.3, None), 0.1 * 3)
    assert not is_worse((None, 0.3), 0.1 * 3)
    assert is_worse((None, 0.3), 0.3001)
    assert is_worse((0.3, 0.4), 0.2999)


def test_halvings_of_a_mean_spread_as_the_mean_of_all_does() -> None:
    rng = np.random.default_rng(0)
    margins, means = [], []
    for _ in range(300):
        values = rng.normal(size=200)
        halves = np.array([rng.choice(values, 100, replace=False).mean() for _ in range(20)])
        margins.append(half_sampling_margin(halves))
        means.append(halves.mean())
    covered = np.mean(np.abs(means) <= np.array(margins))
    assert 0.91 < covered < 0.99
    assert half_sampling_margin(np.array([1.0, 2.0, 3.0])) is None


def test_systems_are_compared_halving_by_halving() -> None:
    # what makes both go up and down together is no reason for doubt
    shared = np.array([0.0, 3.0, -2.0, 1.0, -2.0, 0.0])
    one = Record("recall", "one", float(shared.mean()), halvings=tuple(shared))
    other = replace(one, system="other", value=one.value + 0.1, halvings=tuple(shared + 0.1 + 0.01 * shared[::-1]))
    alone = replace(other, halvings=tuple(0.1 + shared[::-1]))
    assert differ(one, other)
    assert not differ(one, alone)
    assert not differ(one, replace(other, halvings=()))


def test_behind_a_baseline_is_worse_than_real_cells_and_farther_from_them() -> None:
    halvings = {"ceiling": (1.0,) * 4, "ours": (3.0, 3.1, 2.9, 3.0), "nb": (2.0, 2.1, 2.0, 1.9)}
    compared = row("lower", width=0.5, ceiling=1.0, ours=3.0, nb=2.0)
    with_halvings = {name: replace(record, halvings=halvings[name]) for name, record in compared.values.items()}
    assert is_behind(replace(compared, values=with_halvings), "ours", "nb")
    assert not is_behind(replace(compared, values=with_halvings), "nb", "ours")
    assert not is_behind(compared, "ours", "nb")
    near = row("lower", width=2.5, ceiling=1.0, ours=3.0, nb=2.0)
    assert not is_behind(
        replace(near, values={n: replace(r, halvings=halvings[n]) for n, r in near.values.items()}), "ours", "nb"
    )

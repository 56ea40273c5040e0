"""What real cells score: ranges, p-values and how many metrics call them worse."""

import numpy as np
import pytest

from scldm.evaluation.null import LEVEL, Null, n_worse_of_real
from scldm.evaluation.verdict import is_worse

DIRECTIONS = ["lower", "higher", "closest to ceiling"]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("n", [39, 99])
def test_the_range_and_the_p_value_say_the_same(direction, n):
    rng = np.random.default_rng(0)
    differences = rng.normal(size=n)
    null = Null(differences, direction)
    for value in np.concatenate([differences, rng.normal(scale=2, size=200), [-9.0, 9.0]]):
        assert is_worse(null.range, float(value)) == (null.p_value(float(value)) <= LEVEL + 1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("draw", ["normal", "exponential", "integers"])
def test_what_is_exchangeable_is_called_worse_in_5_percent(direction, draw):
    """The observed difference is one of forty that could have been observed: here it is each of them in turn."""
    rng = np.random.default_rng(1)
    drawn = {
        "normal": lambda: rng.normal(size=40),
        "exponential": lambda: rng.exponential(size=40),
        "integers": lambda: rng.integers(5, size=40).astype(np.float64),
    }
    called = []
    for _ in range(30):
        every = drawn[draw]()
        for i in range(40):
            called.append(is_worse(Null(np.delete(every, i), direction).range, float(every[i])))
    if draw == "integers":
        assert np.mean(called) <= 0.05
    else:
        assert np.mean(called) == pytest.approx(0.05)


def test_one_side_is_open_unless_both_are_bad():
    differences = np.arange(-20.0, 20.0)[:39]
    assert Null(differences, "lower").range == (None, 17.0)
    assert Null(differences, "higher").range == (-19.0, None)
    assert Null(differences, "closest to ceiling").range == (-20.0, 18.0)


def test_beyond_all_permutations_the_tail_of_t_says_how_unlikely_it_is():
    differences = np.random.default_rng(0).normal(size=99)
    p_values = [Null(differences, "lower").p_value(value) for value in (0.0, 2.0, 4.0, 6.0, 9.0)]
    assert p_values == sorted(p_values, reverse=True)
    assert 1e-6 < p_values[2] < 1e-3
    assert p_values[4] < 1e-10
    assert Null(differences, "higher").p_value(9.0) == 1.0
    # what never varies is certain beyond, and nothing where it is met
    constant = Null(np.zeros(39), "lower")
    assert constant.p_value(0.1) == 0.0
    assert constant.p_value(0.0) == 1.0
    assert constant.range == (None, 0.0)


def test_how_many_metrics_call_real_cells_worse():
    rng = np.random.default_rng(0)
    independent = [Null(rng.normal(size=200), "lower") for _ in range(100)]
    # of 100 independent ones 5 on average, up to 9 in 95 % (binomial)
    assert n_worse_of_real(independent) == pytest.approx(9, abs=1)
    same = rng.normal(size=200)
    # metrics that say the same do so together: mostly none, sometimes all
    assert n_worse_of_real([Null(same, "lower")] * 100) in (0, 100)
    assert n_worse_of_real([Null(np.zeros(50), "lower")] * 10) == 0
    assert n_worse_of_real([]) == 0

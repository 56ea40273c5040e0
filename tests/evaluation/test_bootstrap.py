import numpy as np
import pytest

from scldm.evaluation.bootstrap import Estimate, draw_weights, weighted_mean
from scldm.evaluation.records import Value


def test_weights_are_independent_counts_of_mean_one():
    weights = draw_weights(400, np.random.default_rng(0), 300)
    assert weights.shape == (300, 400)
    assert weights.dtype == np.float32
    assert weights.mean() == pytest.approx(1.0, abs=0.01)
    assert weights.var() == pytest.approx(1.0, abs=0.02)
    assert abs(np.corrcoef(weights[:, 0], weights[:, 1])[0, 1]) < 0.2


def test_weighted_mean_is_the_mean_and_numpy_average_per_resample():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=50), draw_weights(50, rng, 20)
    estimate = weighted_mean(values, weights)
    assert estimate.value == pytest.approx(values.mean())
    expected = [np.average(values, weights=w) for w in weights]
    np.testing.assert_allclose(estimate.replicates, expected, rtol=1e-6)


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        estimate = weighted_mean(rng.exponential(2.0, size=100), draw_weights(100, rng, 200))
        low, high = estimate.interval
        hits += low <= 2.0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_the_interval_lies_round_the_value_whatever_the_bias_of_the_replicates():
    replicates = np.random.default_rng(3).normal(10.0, 1.0, size=5000)
    low, high = Estimate(3.0, replicates).interval
    assert low == pytest.approx(3.0 - 1.96, abs=0.1)
    assert high == pytest.approx(3.0 + 1.96, abs=0.1)
    assert Estimate(3.0).interval is None


def test_the_mean_over_splits_is_taken_resample_by_resample():
    one, two = Estimate(1.0, np.array([1.0, 2.0])), Estimate(3.0, np.array([5.0, 2.0]))
    both = Estimate.mean([one, two])
    assert both.value == 2.0
    np.testing.assert_array_equal(both.replicates, [3.0, 2.0])
    assert Estimate.mean([one, Estimate(3.0)]).replicates is None


def test_only_finite_numbers_are_reported():
    value = Estimate(1.5, np.linspace(-1, 1, 201)).reported
    assert (value.value, value.low, value.high) == pytest.approx((1.5, 0.55, 2.45))
    assert Estimate(1.5).reported == Value(1.5)
    assert Estimate(1.5, np.array([np.nan, 1.0])).reported == Value(1.5)
    assert Estimate(float("nan")).reported is None


def test_an_estimate_of_rows_has_the_first_as_its_value():
    estimate = Estimate.of(np.array([2.0, 1.0, 3.0], dtype=np.float32))
    assert estimate.value == 2.0
    np.testing.assert_array_equal(estimate.replicates, [1.0, 3.0])
    assert Estimate.of(None) is None

import numpy as np
import pytest
from scipy.stats import ks_2samp

from scldm.evaluation.bootstrap import median_ratio, weighted_quantiles
from scldm.evaluation.metrics.depth import kolmogorov_smirnov


def test_weighted_medians_are_those_of_the_cells_drawn_so_often():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 30, 41).astype(float)
    weights = rng.poisson(1.0, size=(20, 41)).astype(np.float32)
    expected = [np.median(np.repeat(values, weight.astype(int))) for weight in weights]
    np.testing.assert_allclose(weighted_quantiles(values, weights), expected)


def test_a_weighted_quantile_by_hand():
    values = np.array([4.0, 1.0, 3.0, 2.0])
    weights = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 5.0, 1.0]])
    np.testing.assert_allclose(weighted_quantiles(values, weights, 0.25), [1.5, 3.0])
    np.testing.assert_allclose(weighted_quantiles(values, weights, 0.1), [1.0, 2.0])


def test_the_ratio_of_medians():
    system, reference = np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0, 100.0])
    found = median_ratio(system, reference, np.array([[0.0, 0.0, 1.0]]), np.array([[1.0, 0.0, 1.0, 1.0]]))
    assert found.value == pytest.approx(4.0 / 2.5)
    np.testing.assert_allclose(found.replicates, [6.0 / 3.0])
    assert median_ratio(system, np.zeros(3), np.ones((1, 3)), np.ones((1, 3))) is None


@pytest.mark.parametrize("n_values", [5, 1000])
def test_kolmogorov_smirnov_matches_scipy_with_and_without_ties(n_values):
    rng = np.random.default_rng(0)
    system, reference = rng.integers(0, n_values, 60) * 1.0, rng.integers(0, n_values, 80) * 1.1 // 1
    weights = [np.vstack([np.ones(n), rng.poisson(1.0, size=(3, n))]) for n in (60, 80)]
    found = kolmogorov_smirnov(system, reference, *weights)
    for row in range(4):
        drawn = [np.repeat(v, w[row].astype(int)) for v, w in zip((system, reference), weights, strict=True)]
        assert found[row] == pytest.approx(ks_2samp(*drawn).statistic)


def test_kolmogorov_smirnov_of_equal_and_disjoint_sets():
    values, ones = np.arange(10.0), np.ones((1, 10))
    assert kolmogorov_smirnov(values, values, ones, ones)[0] == pytest.approx(0.0)
    assert kolmogorov_smirnov(values, values + 100, ones, ones)[0] == pytest.approx(1.0)

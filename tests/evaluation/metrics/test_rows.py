import numpy as np
import pytest

from scldm.evaluation.metrics.rows import mean_of, median_ratio, ordered, quantile_of


@pytest.mark.parametrize("method", ["linear", "weibull"])
@pytest.mark.parametrize("n_chosen", [1, 2, 40, 99, 120])
def test_quantiles_are_those_of_numpy(draw, method, n_chosen):
    values = np.random.default_rng(0).normal(size=150)
    chosen, _ = draw(150, n_chosen, 0)
    for level in (0.0, 0.01, 0.1, 0.25, 0.5, 0.77, 0.99, 1.0):
        expected = [np.quantile(values[row], level, method=method) for row in chosen]
        np.testing.assert_allclose(quantile_of(values, chosen, level, method=method), expected, rtol=1e-9, atol=1e-12)


def test_quantiles_of_values_that_are_equal(draw):
    values = np.random.default_rng(0).integers(0, 30, 90).astype(float)
    chosen, _ = draw(90, 41, 0, n_rows=20)
    np.testing.assert_allclose(quantile_of(values, chosen, 0.5), [np.median(values[row]) for row in chosen])


def test_a_quantile_by_hand():
    values = np.array([4.0, 1.0, 3.0, 2.0, 9.0])
    chosen = np.array([[True, True, True, True, False], [True, False, True, True, True]])
    np.testing.assert_allclose(quantile_of(values, chosen, 0.25), [1.75, 2.75])
    np.testing.assert_allclose(quantile_of(values, chosen, 0.5), [2.5, 3.5])
    # at position .3 (n + 1) = 1.5 of four
    np.testing.assert_allclose(quantile_of(values, chosen, 0.3, method="weibull"), [1.5, 2.5])


def test_chosen_values_are_sorted_in_every_row(draw):
    values = np.random.default_rng(0).integers(0, 9, 50).astype(float)
    chosen, _ = draw(50, 17, 0)
    np.testing.assert_array_equal(ordered(values, chosen), [np.sort(values[row]) for row in chosen])


def test_means_are_those_of_the_chosen_cells(draw):
    values = np.random.default_rng(0).normal(size=50)
    chosen, _ = draw(50, 17, 0)
    chosen[1, :20] = False  # another number of cells
    np.testing.assert_allclose(mean_of(values, chosen), [values[row].mean() for row in chosen])
    assert mean_of(values, np.zeros((1, 50), dtype=bool))[0] == 0.0


def test_the_ratio_of_medians():
    values = np.array([2.0, 4.0, 6.0, 1.0, 2.0, 3.0, 100.0])
    system = np.array([[1, 1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0, 0]], dtype=bool)
    np.testing.assert_allclose(median_ratio(values, system, ~system), [4.0 / 2.5, 2.0 / 3.5])
    np.testing.assert_allclose(median_ratio(values, ~system, system), [2.5 / 4.0, 3.5 / 2.0])


def test_no_ratio_where_the_reference_has_a_median_of_zero():
    values = np.repeat([0.0, 1.0], [3, 3])
    mostly_zero = np.array([[1, 1, 0, 1, 0, 0]], dtype=bool)
    assert median_ratio(values, mostly_zero, ~mostly_zero)[0] == 0.0
    assert median_ratio(values, ~mostly_zero, mostly_zero) is None
    both = np.concatenate([mostly_zero, ~mostly_zero])
    assert median_ratio(values, both, ~both) is None  # in one of two rows

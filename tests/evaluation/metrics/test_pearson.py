import numpy as np
import pytest

from scldm.evaluation.metrics.pearson import pair_correlations, pearson, pearson_rows


def every(values: np.ndarray) -> np.ndarray:
    return np.ones((1, len(values)), dtype=bool)


def test_pearson_matches_numpy_and_is_zero_for_a_constant():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson(x, np.ones(30)) == 0.0


def test_pair_correlations_match_numpy_and_silent_genes_have_none():
    values = np.random.default_rng(0).poisson(2.0, size=(40, 3)).astype(float)
    values[:, 2] = 0
    (correlations,) = pair_correlations(values, every(values))
    np.testing.assert_allclose(correlations, [np.corrcoef(values[:, 0], values[:, 1])[0, 1], 0.0, 0.0])


def test_agreement_of_correlations_of_constructed_matrices():
    def agreement(one: np.ndarray, other: np.ndarray) -> float:
        return float(pearson_rows(pair_correlations(one, every(one)), pair_correlations(other, every(other)))[0])

    rng = np.random.default_rng(0)
    together = rng.normal(size=(4000, 2))[:, [0, 0, 1, 1]] + 0.3 * rng.normal(size=(4000, 4))
    same, again = together[:2000], together[2000:]
    assert agreement(same, again) > 0.99
    # other pairs of genes go together: of six pairs two are high here, and two others there
    assert agreement(same, again[:, [0, 2, 1, 3]]) == pytest.approx(-0.5, abs=0.05)
    independent = np.stack([rng.permutation(column) for column in again.T], axis=1)
    assert abs(agreement(same, independent)) < 0.9


def test_pearson_of_rows_among_chosen_values():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 40))
    among = rng.random((3, 40)) < 0.6
    found = pearson_rows(x, y, among)
    for row in range(3):
        assert found[row] == pytest.approx(np.corrcoef(x[row, among[row]], y[row, among[row]])[0, 1])
    np.testing.assert_allclose(pearson_rows(x, y), [pearson(x[row], y[row]) for row in range(3)])
    assert pearson_rows(x, y, np.zeros((3, 40), dtype=bool)).tolist() == [0.0, 0.0, 0.0]


def test_pair_correlations_in_every_row_are_those_of_the_chosen_cells(draw):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 5)) + rng.normal(size=(50, 1)) + 10.0
    values[:, 2] = 4.0
    chosen, _ = draw(50, 30, 0)
    for row, found in zip(chosen, pair_correlations(values, chosen), strict=True):
        with np.errstate(invalid="ignore"):  # one gene never varies
            expected = np.nan_to_num(np.corrcoef(values[row].T))
        np.testing.assert_allclose(found, expected[np.triu_indices(5, k=1)], atol=1e-6)


def test_pair_correlations_of_values_far_from_zero(draw):
    values = np.random.default_rng(0).normal(size=(50, 4))
    chosen, _ = draw(50, 30, 0)
    np.testing.assert_allclose(pair_correlations(values + 1e7, chosen), pair_correlations(values, chosen), atol=1e-6)


def test_genes_that_vary_only_in_cells_that_are_not_chosen_correlate_with_none():
    values = np.random.default_rng(0).normal(size=(30, 20))
    values[:13, :19] = values[0, :19]
    rows = np.stack([np.arange(30) < 13, np.arange(30) >= 13])
    constant, varying = pair_correlations(values, rows)
    np.testing.assert_array_equal(constant, 0.0)
    np.testing.assert_allclose(varying, np.corrcoef(values[13:].T)[np.triu_indices(20, k=1)])


def test_pair_correlations_within_groups_leave_out_what_differs_between_them():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 3000)
    independent = rng.normal(size=(3000, 4))
    values = independent + 3.0 * groups[:, None]  # all genes follow the group and nothing else
    assert pair_correlations(values, every(values)).min() > 0.8
    within = pair_correlations(values, every(values), groups)
    assert np.abs(within).max() < 0.06
    np.testing.assert_allclose(within[0], of_residuals(values, groups))


def of_residuals(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    residuals = values.copy()
    for group in np.unique(groups):
        residuals[groups == group] -= values[groups == group].mean(axis=0)
    return np.corrcoef(residuals.T)[np.triu_indices(values.shape[1], k=1)]


def test_pair_correlations_within_groups_in_every_row_are_those_of_the_chosen_cells(draw):
    rng = np.random.default_rng(0)
    groups = np.append(rng.integers(0, 3, 78), [3, 3])
    values = rng.normal(size=(80, 4)) + rng.normal(size=(80, 1)) + groups[:, None]
    chosen, _ = draw(80, 40, 0)
    chosen[0, groups == 1] = False  # without the cells of a group
    for row, found in zip(chosen, pair_correlations(values, chosen, groups), strict=True):
        np.testing.assert_allclose(found, of_residuals(values[row], groups[row]), atol=1e-9)

import numpy as np
import pytest

from scldm.evaluation.metrics.pearson import pair_correlations, pearson, pearson_rows


def test_pearson_matches_numpy_and_is_zero_for_a_constant():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson(x, np.ones(30)) == 0.0


def test_pair_correlations_match_numpy_and_silent_genes_have_none():
    values = np.random.default_rng(0).poisson(2.0, size=(40, 3)).astype(float)
    values[:, 2] = 0
    (correlations,) = pair_correlations(values, np.ones((1, 40)))
    np.testing.assert_allclose(correlations, [np.corrcoef(values[:, 0], values[:, 1])[0, 1], 0.0, 0.0])


def test_agreement_of_correlations_of_constructed_matrices():
    def agreement(one: np.ndarray, other: np.ndarray) -> float:
        ones = np.ones((1, len(one)))
        return float(pearson_rows(pair_correlations(one, ones), pair_correlations(other, ones))[0])

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


def test_pair_correlations_of_resamples_are_those_of_the_cells_drawn_so_often():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 5)) + rng.normal(size=(30, 1)) + 10.0
    values[:, 2] = 4.0
    weights = np.vstack([np.ones(30), rng.poisson(1.0, size=(2, 30))])
    found = pair_correlations(values, weights)
    for row, weight in enumerate(weights.astype(int)):
        with np.errstate(invalid="ignore"):  # one gene never varies
            drawn = np.nan_to_num(np.corrcoef(np.repeat(values, weight, axis=0).T))
        np.testing.assert_allclose(found[row], drawn[np.triu_indices(5, k=1)], atol=1e-6)


def test_pair_correlations_within_groups_leave_out_what_differs_between_them():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 3000)
    independent = rng.normal(size=(3000, 4))
    values = independent + 3.0 * groups[:, None]  # all genes follow the group and nothing else
    assert pair_correlations(values, np.ones((1, 3000))).min() > 0.8
    within = pair_correlations(values, np.ones((1, 3000)), groups)
    assert np.abs(within).max() < 0.06
    residuals = values - np.stack([values[groups == g].mean(axis=0) for g in range(3)])[groups]
    expected = np.corrcoef(residuals.T)[np.triu_indices(4, k=1)]
    np.testing.assert_allclose(within[0], expected)

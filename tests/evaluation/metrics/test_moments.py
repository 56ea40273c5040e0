import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import log1p_cp10k
from scldm.evaluation.metrics.moments import (
    GeneMoments,
    binned_medians,
    dispersion_trend_error,
    sums_of,
    zero_curve_error,
)


def moments(counts: np.ndarray, chosen: np.ndarray | None = None) -> GeneMoments:
    sparse = csr_matrix(counts.astype(np.float32))
    chosen = np.ones((1, len(counts)), dtype=bool) if chosen is None else chosen
    return GeneMoments.compute(sparse, log1p_cp10k(sparse), chosen, np.arange(counts.shape[1]))


def negative_binomial(mean: np.ndarray, dispersion: float, rng: np.random.Generator) -> np.ndarray:
    rate = mean if dispersion == 0 else mean * rng.gamma(1 / dispersion, dispersion, size=mean.shape)
    return rng.poisson(rate)


def test_moments_by_hand():
    counts = np.array([[2, 0, 8], [0, 0, 10], [5, 5, 0], [1, 0, 9]])
    found = moments(counts)
    logs = np.log1p(counts * 1000.0)
    np.testing.assert_allclose(found.means[0], logs.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.variances[0], logs.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.zero_fractions[0], [0.25, 0.75, 0.25])
    np.testing.assert_allclose(found.mean_counts[0], [2.0, 1.25, 6.75])
    # all depths are 10: E[c (c - 1)] / E[c]^2 - 1
    np.testing.assert_allclose(found.dispersions[0, 0], (2 + 20) / 4 / 4.0 - 1)


def test_every_row_has_the_moments_of_the_chosen_cells(draw):
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 2.0, size=(60, 8)))
    chosen, _ = draw(60, 40, 0)
    chosen[1, :30] = False  # another number of cells
    found = moments(counts, chosen)
    for row, cells in enumerate(chosen):
        alone = moments(counts[cells])
        for name in ("means", "variances", "zero_fractions", "mean_counts", "dispersions"):
            np.testing.assert_allclose(getattr(found, name)[row], getattr(alone, name)[0], rtol=1e-4, err_msg=name)


def test_mean_counts_and_dispersions_are_of_the_expressed_genes_in_their_order(draw):
    counts = np.random.default_rng(0).poisson(3.0, size=(40, 6)).astype(np.float32)
    chosen, _ = draw(40, 25, 0)
    sparse = csr_matrix(counts)
    some = GeneMoments.compute(sparse, log1p_cp10k(sparse), chosen, np.array([4, 0]))
    every = moments(counts, chosen)
    np.testing.assert_allclose(some.mean_counts, every.mean_counts[:, [4, 0]])
    np.testing.assert_allclose(some.dispersions, every.dispersions[:, [4, 0]])
    np.testing.assert_array_equal(some.means, every.means)
    expected = np.log10(np.maximum(every.dispersions[:, [0]], 0.01))
    np.testing.assert_allclose(some.log_dispersions(np.array([1])), expected)


def test_hardly_any_dispersion_counts_as_a_hundredth():
    counts = np.column_stack([np.full(30, 4), np.zeros(30), np.arange(30)])
    np.testing.assert_allclose(moments(counts).log_dispersions(np.arange(2)), [[-2.0, -2.0]])


def test_genes_that_do_not_vary_have_no_variance():
    counts = np.full((50, 2), 5)
    counts[:, 1] = 0
    found = moments(np.column_stack([counts, np.arange(50) % 3]))
    assert found.variances[0, 1] == 0.0
    assert np.isnan(found.dispersions[0, 1])
    constant = moments(counts)
    np.testing.assert_array_equal(constant.variances, 0.0)


@pytest.mark.parametrize("dispersion", [0.0, 0.5, 2.0])
def test_the_dispersion_of_known_negative_binomials_whatever_the_depths(dispersion):
    rng = np.random.default_rng(0)
    depth = np.exp(rng.normal(0.0, 0.6, size=(8000, 1)))  # alone, this would look like a dispersion of 0.43
    counts = negative_binomial(depth * np.full((1, 30), 3.0), dispersion, rng)
    # genes without overdispersion make up most of the depth, as in real cells
    counts = np.column_stack([counts, rng.poisson(500 * depth)])
    found = moments(counts).dispersions[0]
    assert np.median(found[:30]) == pytest.approx(dispersion, abs=0.03)
    assert found[30] == pytest.approx(0.0, abs=0.01)


def test_binned_medians_match_numpy():
    rng = np.random.default_rng(0)
    values, bins = rng.normal(size=(4, 50)), rng.integers(-1, 7, size=(4, 50))
    medians, sizes = binned_medians(values, bins, 6)
    for row in range(4):
        for b in range(6):
            inside = values[row][bins[row] == b]
            assert sizes[row, b] == len(inside)
            np.testing.assert_allclose(medians[row, b], np.median(inside) if len(inside) else np.nan)
    assert np.isnan(binned_medians(values, np.zeros_like(bins), 2)[0][:, 1]).all()


def test_the_zero_curve_sees_zeros_beyond_the_mean_and_not_wrong_means():
    rng = np.random.default_rng(0)
    means = 10.0 ** np.linspace(-1.4, 1.0, 400)
    real = moments(rng.poisson(means, size=(500, 400)))
    assert zero_curve_error(real, real) == pytest.approx(0.0)
    permuted = moments(rng.poisson(rng.permutation(means), size=(500, 400)))  # every gene has another gene's mean
    assert zero_curve_error(permuted, real)[0] < 0.02
    # the same means with a dispersion of 1: (1 + m)^-1 instead of exp(-m) zeros
    inflated = moments(negative_binomial(np.tile(means, (500, 1)), 1.0, rng))
    middle = 10.0 ** np.arange(-1.375, 1.0, 0.25)
    expected = np.mean(1 / (1 + middle) - np.exp(-middle))
    assert zero_curve_error(inflated, real)[0] == pytest.approx(expected, abs=0.02)


def test_no_curve_without_enough_genes():
    few = moments(np.random.default_rng(0).poisson(1.0, size=(50, 4)))
    assert zero_curve_error(few, few) is None
    assert dispersion_trend_error(few, few, np.arange(4), 10) is None


def test_the_dispersion_trend_error_is_a_log10_factor():
    rng = np.random.default_rng(0)
    means = np.tile(np.linspace(5.0, 50.0, 60), (3000, 1))
    low, high = (moments(negative_binomial(means, dispersion, rng)) for dispersion in (0.2, 2.0))
    assert dispersion_trend_error(low, low, np.arange(60), 10)[0] == 0.0
    assert dispersion_trend_error(high, low, np.arange(60), 10)[0] == pytest.approx(1.0, abs=0.05)


def test_the_errors_of_curves_and_trends_are_those_of_every_row(draw):
    rng = np.random.default_rng(0)
    means = 10.0 ** np.linspace(-1.4, 1.0, 80)
    counts = negative_binomial(np.tile(means, (120, 1)), 0.5, rng)
    system, reference = draw(120, 50, 50)
    both, chosen = (moments(counts, system), moments(counts, reference)), np.arange(20, 80)
    curves, trends = zero_curve_error(*both), dispersion_trend_error(*both, chosen, 10)
    for row, cells in enumerate(zip(system, reference, strict=True)):
        alone = [moments(counts[side]) for side in cells]
        assert curves[row] == pytest.approx(zero_curve_error(*alone)[0], rel=1e-4)
        assert trends[row] == pytest.approx(dispersion_trend_error(*alone, chosen, 10)[0], rel=1e-4)
    assert len(np.unique(curves)) == len(np.unique(trends)) == 4


def test_sums_are_those_of_the_chosen_cells(draw):
    values = np.random.default_rng(0).gamma(1.0, 2.0, size=(50, 4)) * (np.arange(200).reshape(50, 4) % 3 > 0)
    chosen, _ = draw(50, 20, 0)
    np.testing.assert_allclose(sums_of(csr_matrix(values), chosen), [values[row].sum(axis=0) for row in chosen], 1e-5)
    counts = csr_matrix(np.array([[2.0**24, 1.0], [1.0, 5.0]]))  # exact in single precision, alone
    np.testing.assert_array_equal(sums_of(counts, np.array([[True, False], [False, True]])), counts.toarray())
    np.testing.assert_array_equal(sums_of(counts, np.zeros((1, 2), dtype=bool)), [[0.0, 0.0]])

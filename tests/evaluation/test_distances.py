import numpy as np
import ot
import pytest
from scipy.linalg import sqrtm

from scldm.evaluation import distances
from scldm.evaluation.distances import (
    BANDWIDTH_FACTORS,
    frechet_distance,
    frechet_estimate,
    from_potentials,
    median_bandwidth,
    mmd2,
    mmd2_estimate,
    sliced_potentials,
    transport_potentials,
    wasserstein2,
)
from scldm.evaluation.resampling import draw_weights


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(70, 4)), rng.normal(0.4, 1.2, size=(50, 4))


def test_wasserstein_of_a_shifted_cloud_is_the_length_of_the_shift(clouds):
    x = clouds[0]
    shift = np.array([3.0, 0.0, -4.0, 0.0])
    assert wasserstein2(x, x[::-1] + shift) == pytest.approx(5.0)


def test_wasserstein_of_a_permutation_is_zero(clouds):
    x = clouds[0]
    assert wasserstein2(x, np.random.default_rng(1).permutation(x)) == pytest.approx(0.0, abs=1e-6)


def test_wasserstein_in_one_dimension_matches_sorted_values():
    x, y = np.random.default_rng(0).normal(size=(2, 80, 1)) * [[[1.0]], [[3.0]]]
    assert wasserstein2(x, y) == pytest.approx(np.sqrt(((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2).mean()))


def test_wasserstein_of_unequal_numbers_spreads_the_mass():
    assert wasserstein2(np.array([[0.0]]), np.array([[3.0], [4.0]])) == pytest.approx(np.sqrt(12.5))


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_is_the_double_sum(clouds, unbiased, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 16)
    x, y = clouds
    bandwidths = (0.5, 2.0)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return sum(np.exp(-((a - b) ** 2).sum() / (2 * s**2)) for s in bandwidths)

    def mean(a: np.ndarray, b: np.ndarray, skip_self: bool) -> float:
        values = [kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (skip_self and i == j)]
        return float(np.mean(values))

    expected = mean(x, x, unbiased) + mean(y, y, unbiased) - 2 * mean(x, y, False)
    assert mmd2(x, y, bandwidths, unbiased) == pytest.approx(expected, rel=1e-9)


def test_unbiased_mmd_is_zero_on_average_and_biased_mmd_of_a_copy_is_zero(clouds):
    rng = np.random.default_rng(3)
    values = [mmd2(*rng.normal(size=(2, 40, 3)), [1.0]) for _ in range(100)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 10
    assert min(values) < 0
    assert mmd2(clouds[0], clouds[0], [1.0], unbiased=False) == pytest.approx(0.0, abs=1e-12)


def test_median_bandwidth_makes_the_median_pair_fall_to_one_over_e(clouds):
    x = clouds[0]
    squared = ((x[:, None] - x) ** 2).sum(axis=-1)[np.triu_indices(len(x), 1)]
    kernel = np.exp(-squared / (2 * median_bandwidth(x) ** 2))
    assert np.median(kernel) == pytest.approx(np.exp(-1), rel=0.01)
    assert median_bandwidth(np.zeros((5, 2))) == 1.0


def test_frechet_of_known_gaussians():
    # samples whitened to exactly the identity covariance, then stretched by powers of two
    x = np.random.default_rng(0).normal(size=(200, 3))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    scale_x, scale_y, shift = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 1.0]), np.array([1.0, -2.0, 2.0])
    expected = (shift**2).sum() + ((scale_x - scale_y) ** 2).sum()
    assert frechet_distance(x * scale_x, x * scale_y + shift) == pytest.approx(expected)


def test_frechet_matches_the_matrix_square_root(clouds):
    x, y = clouds
    x = x @ np.random.default_rng(5).normal(size=(4, 4))
    covariance_x, covariance_y = np.cov(x.T), np.cov(y.T)
    root = sqrtm(covariance_x @ covariance_y).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(covariance_x + covariance_y - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected)
    assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)


def test_frechet_survives_fewer_cells_than_features():
    x, y = np.random.default_rng(0).normal(size=(2, 5, 12))
    assert np.isfinite(frechet_distance(x, y))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))


def weights_for(*sizes: int, n_resamples: int = 25) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    return [draw_weights(size, rng, n_resamples) for size in sizes]


def test_potentials_are_a_dual_solution(clouds):
    x, y = clouds
    u, v = transport_potentials(x, y)
    cost = ((x[:, None] - y) ** 2).sum(axis=-1)
    assert (u[:, None] + v <= cost + 1e-9).all()
    assert u.mean() + v.mean() == pytest.approx(ot.emd2([], [], cost))


def test_the_interval_of_wasserstein_is_that_of_transport_solved_anew(clouds):
    # the first-order replicates against exact transport between resampled clouds
    x, y = np.random.default_rng(0).normal(size=(2, 150, 3))
    y += 1.0
    weights_x, weights_y = weights_for(150, 150, n_resamples=120)
    estimate = from_potentials(*transport_potentials(x, y), weights_x, weights_y)
    assert estimate.value == pytest.approx(wasserstein2(x, y))
    cost = ((x[:, None] - y) ** 2).sum(axis=-1)
    anew = []
    for a, b in zip(weights_x.astype(float), weights_y.astype(float), strict=True):
        anew.append(np.sqrt(ot.emd2(a / a.sum(), b / b.sum(), cost)))
    assert np.std(estimate.replicates) == pytest.approx(np.std(anew), rel=0.15)
    assert np.corrcoef(estimate.replicates, anew)[0, 1] > 0.9


def test_sliced_wasserstein_in_one_dimension_is_exact():
    x, y = np.random.default_rng(0).normal(size=(2, 80, 1)) * [[[1.0]], [[3.0]]]
    weights = weights_for(80, 80)
    sliced = from_potentials(*sliced_potentials(x, y, n_projections=4), *weights)
    exact = from_potentials(*transport_potentials(x, y), *weights)
    assert sliced.value == pytest.approx(exact.value)
    np.testing.assert_allclose(sliced.replicates, exact.replicates, rtol=0.05)


def test_sliced_wasserstein_matches_pot_and_counts_a_shift_as_wasserstein_does(clouds):
    x = clouds[0][:50]
    y = clouds[1]
    u, v = sliced_potentials(x, y, n_projections=64, seed=5)
    expected = ot.sliced_wasserstein_distance(x, y, n_projections=64, seed=5) ** 2 * 4
    assert u.mean() + v.mean() == pytest.approx(expected)
    u, v = sliced_potentials(x, x[::-1] + np.array([3.0, 0.0, -4.0, 0.0]), n_projections=4000)
    assert np.sqrt(u.mean() + v.mean()) == pytest.approx(5.0, rel=0.03)
    with pytest.raises(ValueError, match="equally many cells, not 50 and 49"):
        sliced_potentials(x, y[:49])


def test_sliced_potentials_are_a_dual_solution_on_every_line():
    x, y = np.random.default_rng(2).normal(size=(2, 40, 1))
    y += 0.7
    u, v = sliced_potentials(x, y, n_projections=1)
    assert (u[:, None] + v <= (x - y.T) ** 2 + 1e-9).all()
    assert u.mean() + v.mean() == pytest.approx(((np.sort(x, axis=0) - np.sort(y, axis=0)) ** 2).mean())


def test_mmd_estimate_is_the_direct_sum_over_five_kernels_with_and_without_weights(clouds, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 16)
    x, y = clouds
    median = 3.0
    weights_x, weights_y = weights_for(70, 50, n_resamples=3)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = ((a[:, None] - b) ** 2).sum(axis=-1)
        return np.mean([np.exp(-squared / (median * f)) for f in BANDWIDTH_FACTORS], axis=0)

    def direct(a: np.ndarray, b: np.ndarray) -> float:
        def within(points: np.ndarray, w: np.ndarray) -> float:
            pairs = np.outer(w, w) * (1 - np.eye(len(w)))
            return float((pairs * kernel(points, points)).sum() / pairs.sum())

        return within(x, a) + within(y, b) - 2 * float(a @ kernel(x, y) @ b) / (a.sum() * b.sum())

    estimate = mmd2_estimate(x, y, median, weights_x, weights_y)
    assert estimate.value == pytest.approx(direct(np.ones(70), np.ones(50)), rel=1e-9)
    expected = [direct(a, b) for a, b in zip(weights_x.astype(float), weights_y.astype(float), strict=True)]
    np.testing.assert_allclose(estimate.replicates, expected, atol=1e-6)
    bandwidths = [np.sqrt(median * f / 2) for f in BANDWIDTH_FACTORS]
    assert estimate.value == pytest.approx(mmd2(x, y, bandwidths) / 5)


def test_resampled_mmd_is_not_biased_by_cells_drawn_twice():
    x, y = np.random.default_rng(3).normal(size=(2, 200, 3))
    estimate = mmd2_estimate(x, y, 4.0, *weights_for(200, 200, n_resamples=200))
    assert abs(np.mean(estimate.replicates) - estimate.value) < np.std(estimate.replicates)


def test_frechet_replicates_are_those_of_repeated_cells(clouds, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 16)
    x, y = clouds
    weights_x, weights_y = weights_for(70, 50, n_resamples=4)
    estimate = frechet_estimate(x, y, weights_x, weights_y)
    assert estimate.value == pytest.approx(frechet_distance(x, y))
    for replicate, a, b in zip(estimate.replicates, weights_x.astype(int), weights_y.astype(int), strict=True):
        assert replicate == pytest.approx(frechet_distance(np.repeat(x, a, axis=0), np.repeat(y, b, axis=0)))

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scldm.evaluation import distances
from scldm.evaluation.distances import (
    frechet_distance,
    median_bandwidth,
    mmd2,
    nearest_neighbour_accuracy,
    precision_and_recall,
    wasserstein2,
)


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


def test_nearest_neighbour_accuracy_leaves_one_out_by_hand():
    # nearest others: 0 -> 1 and 1 -> 0 (same sample); 10 -> 10.5, 2.5 -> 1 and 10.5 -> 10 (the other sample)
    x, y = np.array([[0.0], [1.0], [10.0]]), np.array([[2.5], [10.5]])
    assert nearest_neighbour_accuracy(x, y) == pytest.approx(2 / 5)


def test_nearest_neighbour_accuracy_matches_scikit_learn(clouds, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 16)
    points, sample = np.concatenate(clouds), np.repeat([0, 1], [70, 50])
    # with no query given, a point is not its own neighbour
    nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(return_distance=False)[:, 0]
    assert nearest_neighbour_accuracy(*clouds) == pytest.approx((sample[nearest] == sample).mean())
    assert KNeighborsClassifier(1).fit(points, sample).score(points, sample) == 1.0  # what a leak would give


def test_nearest_neighbour_accuracy_between_chance_and_certainty():
    x, y = np.random.default_rng(0).normal(size=(2, 800, 3))
    assert nearest_neighbour_accuracy(x, y) == pytest.approx(0.5, abs=0.04)
    assert nearest_neighbour_accuracy(x, y + 100.0) == 1.0


def test_nearest_neighbour_accuracy_of_copies_is_zero_and_ties_share_the_vote(clouds):
    x = clouds[0]
    assert nearest_neighbour_accuracy(x, x.copy()) == 0.0
    # all six points coincide: of the five others, two are of the same sample
    assert nearest_neighbour_accuracy(np.zeros((3, 2)), np.zeros((3, 2))) == pytest.approx(2 / 5)


def test_dropping_a_mode_lowers_recall_only():
    rng = np.random.default_rng(0)
    two_modes = np.concatenate([rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 100])
    one_mode = rng.normal(size=(120, 2)) * 0.9
    precision, recall = precision_and_recall(two_modes, one_mode)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5


def test_outliers_lower_precision_only():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(120, 2))
    generated = np.concatenate([rng.normal(size=(90, 2)), rng.uniform(1e3, 1e6, size=(30, 2))])
    precision, recall = precision_and_recall(real, generated)
    assert 0.65 < precision <= 0.75
    assert recall > 0.9


def test_precision_by_hand():
    # with one neighbour the real balls are [-1, 1], [0, 2] and [1, 19]
    real, generated = np.array([[0.0], [1.0], [10.0]]), np.array([[-0.9], [1.9], [17.0], [19.5], [-1.1]])
    assert precision_and_recall(real, generated, n_neighbours=1)[0] == pytest.approx(3 / 5)


def test_precision_and_recall_swap_with_their_arguments(clouds, monkeypatch):
    whole = precision_and_recall(*clouds)
    assert whole == precision_and_recall(*clouds[::-1])[::-1]
    monkeypatch.setattr(distances, "_BLOCK_ROWS", 7)
    assert precision_and_recall(*clouds) == whole

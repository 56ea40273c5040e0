import numpy as np
import pytest

from scldm.evaluation.metrics import kernels
from scldm.evaluation.metrics.kernels import BANDWIDTH_FACTORS, median_bandwidth, mmd2, mmd2_estimate


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_is_the_double_sum(clouds, unbiased, monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCK_ROWS", 16)
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


def test_mmd_estimate_is_the_direct_sum_over_five_kernels_with_and_without_weights(clouds, monkeypatch, weights_for):
    monkeypatch.setattr(kernels, "_BLOCK_ROWS", 16)
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


def test_resampled_mmd_is_not_biased_by_cells_drawn_twice(weights_for):
    x, y = np.random.default_rng(3).normal(size=(2, 200, 3))
    estimate = mmd2_estimate(x, y, 4.0, *weights_for(200, 200, n_resamples=200))
    assert abs(np.mean(estimate.replicates) - estimate.value) < np.std(estimate.replicates)

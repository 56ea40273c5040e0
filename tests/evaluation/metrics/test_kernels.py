import numpy as np
import pytest

from scldm.evaluation.metrics import METRICS, kernels
from scldm.evaluation.metrics.kernels import (
    BANDWIDTH_FACTORS,
    MMD2_PUBLISHED,
    PUBLISHED_BANDWIDTHS,
    median_bandwidth,
    mmd2,
    mmd2_rows,
)


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


def kernel_means(points: np.ndarray, median: float) -> np.ndarray:
    """Kernels between all points, averaged over the bandwidths; zero between a point and itself."""
    squared = ((points[:, None] - points) ** 2).sum(axis=-1)
    return np.mean([np.exp(-squared / (median * f)) for f in BANDWIDTH_FACTORS], axis=0) * (1 - np.eye(len(points)))


@pytest.mark.parametrize("known", [True, False])
def test_every_row_is_the_direct_sum_over_five_kernels_between_the_chosen_points(clouds, draw, monkeypatch, known):
    monkeypatch.setattr(kernels, "_BLOCK_ROWS", 16)
    points, median = np.concatenate(clouds), 3.0
    system, reference = draw(120, 40, 30)
    kernel = kernel_means(points, median)
    found = mmd2_rows(points, median, system, reference, kernel if known else None)
    bandwidths = [np.sqrt(median * f / 2) for f in BANDWIDTH_FACTORS]
    for value, s, r in zip(found, system, reference, strict=True):
        within_s, within_r, between = kernel[np.ix_(s, s)], kernel[np.ix_(r, r)], kernel[np.ix_(s, r)]
        direct = within_s.sum() / (40 * 39) + within_r.sum() / (30 * 29) - 2 * between.mean()
        assert value == pytest.approx(direct, abs=1e-6)
        assert value == pytest.approx(mmd2(points[s], points[r], bandwidths) / 5, abs=1e-6)


def test_cells_of_one_pool_dealt_to_both_sides_have_no_mmd_on_average(clouds, draw):
    values = mmd2_rows(np.concatenate(clouds), 4.0, *draw(120, 50, 50, n_rows=400))
    assert abs(values.mean()) < 3 * values.std() / 20
    assert 0.25 < (values > 0).mean() < 0.75


@pytest.mark.parametrize("max_kept", [8000, 0])
def test_the_unit_of_the_kernels_is_that_of_the_fitting_cells(clouds, draw, compare_points, monkeypatch, max_kept):
    monkeypatch.setattr(kernels, "_MAX_KEPT_CELLS", max_kept)
    monkeypatch.setattr(kernels, "_BLOCK_ROWS", 16)
    points, fitting = np.concatenate(clouds), 2.0 * clouds[0]
    system, reference = draw(120, 45, 45)
    comparison = compare_points(points, system, reference, fitting)
    bandwidths = [median_bandwidth(fitting) * np.sqrt(f) for f in BANDWIDTH_FACTORS]
    sides = [(points[s], points[r]) for s, r in zip(system, reference, strict=True)]
    expected = [mmd2(*side, bandwidths) / 5 for side in sides]
    np.testing.assert_allclose(METRICS["mmd2"].compute(comparison, "pca"), expected, atol=1e-6)
    # other draws of the same pool
    other = compare_points(points, reference[:2], system[:2], fitting)
    np.testing.assert_allclose(METRICS["mmd2"].compute(other, "pca"), expected[:2], atol=1e-6)
    published = [mmd2(*side, PUBLISHED_BANDWIDTHS, unbiased=False) for side in sides]
    np.testing.assert_allclose(MMD2_PUBLISHED.compute(comparison, "pca"), published)

import numpy as np
import pytest
from scipy.linalg import sqrtm

from scldm.evaluation.metrics import frechet
from scldm.evaluation.metrics.frechet import frechet_distance, frechet_estimate


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


def test_frechet_replicates_are_those_of_repeated_cells(clouds, monkeypatch, weights_for):
    monkeypatch.setattr(frechet, "_BLOCK_ROWS", 16)
    x, y = clouds
    weights_x, weights_y = weights_for(70, 50, n_resamples=4)
    estimate = frechet_estimate(x, y, weights_x, weights_y)
    assert estimate.value == pytest.approx(frechet_distance(x, y))
    for replicate, a, b in zip(estimate.replicates, weights_x.astype(int), weights_y.astype(int), strict=True):
        assert replicate == pytest.approx(frechet_distance(np.repeat(x, a, axis=0), np.repeat(y, b, axis=0)))

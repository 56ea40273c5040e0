import numpy as np
import pytest
from scipy.linalg import sqrtm

from scldm.evaluation.metrics import METRICS, frechet
from scldm.evaluation.metrics.frechet import frechet_distance


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


def test_frechet_does_not_depend_on_where_the_origin_is(clouds):
    x, y = clouds
    assert frechet_distance(x + 1e7, y + 1e7) == pytest.approx(frechet_distance(x, y), rel=1e-6)


@pytest.mark.parametrize("n_cells", [(40, 30), (3, 50)])
def test_every_row_is_the_distance_of_the_chosen_cells(clouds, draw, compare_points, monkeypatch, n_cells):
    monkeypatch.setattr(frechet, "_BLOCK_ROWS", 16)
    points = np.concatenate(clouds)
    system, reference = draw(120, *n_cells)
    found = METRICS["frechet_distance"].compute(compare_points(points, system, reference), "pca")
    expected = [frechet_distance(points[s], points[r]) for s, r in zip(system, reference, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_copies_of_one_cell_in_one_row_leave_the_other_rows_as_they_are(clouds, draw, compare_points):
    points = np.concatenate([np.tile(clouds[0][:1], (30, 1)), *clouds])
    system, reference = draw(150, 30, 40)
    system[1], reference[1] = np.arange(150) < 30, np.arange(150) >= 110
    found = METRICS["frechet_distance"].compute(compare_points(points, system, reference), "pca")
    covariance = np.cov(points[110:].T)
    by_hand = ((points[0] - points[110:].mean(axis=0)) ** 2).sum() + np.trace(covariance)
    assert found[1] == pytest.approx(by_hand)
    expected = [frechet_distance(points[s], points[r]) for s, r in zip(system, reference, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)

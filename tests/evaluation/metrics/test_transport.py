import numpy as np
import ot
import pytest

from scldm.evaluation.metrics import METRICS, transport
from scldm.evaluation.metrics.transport import WASSERSTEIN2_PUBLISHED, SortedLines, sliced_wasserstein2, wasserstein2


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


def test_wasserstein_is_the_exact_transport_of_pot(clouds):
    x, y = clouds[0][:50], clouds[1]
    cost = ((x[:, None] - y) ** 2).sum(axis=-1)
    assert wasserstein2(x, y) == pytest.approx(np.sqrt(ot.emd2([], [], cost)))
    twice = np.concatenate([y[:25], y[:25]])  # with ties
    assert wasserstein2(x, twice) == pytest.approx(np.sqrt(ot.emd2([], [], ot.dist(x, twice))))


def test_transport_needs_equally_many_cells(clouds):
    x, y = clouds
    with pytest.raises(ValueError, match="transport needs equally many cells, not 70 and 50"):
        wasserstein2(x, y)
    with pytest.raises(ValueError, match="equally many cells, not 50 and 49"):
        sliced_wasserstein2(x[:50], y[:49])


def test_every_row_is_the_transport_between_the_chosen_cells(clouds, draw, compare_points):
    points = np.concatenate(clouds)
    system, reference = draw(120, 40, 40)
    comparison = compare_points(points, system, reference)
    expected = [wasserstein2(points[s], points[r]) for s, r in zip(system, reference, strict=True)]
    np.testing.assert_allclose(METRICS["wasserstein2"].compute(comparison, "pca"), expected)
    np.testing.assert_allclose(WASSERSTEIN2_PUBLISHED.compute(comparison, "pca"), expected)


def test_of_very_many_cells_a_subsample_stands_for_all(clouds, draw, compare_points, monkeypatch):
    sizes = []

    def recorded(x: np.ndarray, y: np.ndarray) -> float:
        sizes.append((len(x), len(y), len(np.unique(np.concatenate([x, y]), axis=0))))
        return wasserstein2(x, y)

    monkeypatch.setattr(transport, "EXACT_TRANSPORT_CELLS", 20)
    monkeypatch.setattr(transport, "wasserstein2", recorded)
    points = np.concatenate(clouds)
    sides = draw(120, 40, 40, n_rows=2)
    found = METRICS["wasserstein2"].compute(compare_points(points, *sides, seed=3), "pca")
    assert sizes == [(20, 20, 40)] * 2
    np.testing.assert_array_equal(METRICS["wasserstein2"].compute(compare_points(points, *sides, seed=3), "pca"), found)
    other = METRICS["wasserstein2"].compute(compare_points(points, *sides, seed=4), "pca")
    assert (other != found).all()
    sizes.clear()
    WASSERSTEIN2_PUBLISHED.compute(compare_points(points, *sides), "pca")
    assert sizes == [(40, 40, 80)] * 2


def directions(seed: int, n: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(n, 4))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_sliced_wasserstein_in_one_dimension_is_exact():
    x, y = np.random.default_rng(0).normal(size=(2, 80, 1)) * [[[1.0]], [[3.0]]]
    assert sliced_wasserstein2(x, y, n_projections=4) == pytest.approx(wasserstein2(x, y))


def test_sliced_wasserstein_matches_pot_and_counts_a_shift_as_wasserstein_does(clouds):
    x, y = clouds[0][:50], clouds[1]
    # times the root of four features
    expected = 2 * ot.sliced_wasserstein_distance(x, y, projections=directions(5, 64).T)
    assert sliced_wasserstein2(x, y, n_projections=64, seed=5) == pytest.approx(expected)
    shifted = x[::-1] + np.array([3.0, 0.0, -4.0, 0.0])
    assert sliced_wasserstein2(x, shifted, n_projections=4000) == pytest.approx(5.0, rel=0.03)


def test_points_along_lines_are_sorted_once_whatever_parts_are_compared(clouds, draw):
    points = np.concatenate(clouds)
    lines = SortedLines.through(points, seed=7, n_projections=16)
    for s, r in zip(*draw(120, 40, 40), strict=True):
        squares = [((np.sort(points[s] @ d) - np.sort(points[r] @ d)) ** 2).mean() for d in directions(7, 16)]
        assert lines.distance(s, r) == pytest.approx(np.sqrt(4 * np.mean(squares)))
        assert lines.distance(s, r) == pytest.approx(sliced_wasserstein2(points[s], points[r], 16, seed=7))
        assert lines.distance(s, s) == 0.0


def test_every_row_of_sliced_wasserstein_has_the_same_lines(clouds, draw, compare_points):
    points = np.concatenate(clouds)
    system, reference = draw(120, 40, 40)
    comparison = compare_points(points, system, reference)
    seed = int(comparison.rng("projections").integers(2**31))
    found = METRICS["sliced_wasserstein2"].compute(comparison, "pca")
    expected = [sliced_wasserstein2(points[s], points[r], seed=seed) for s, r in zip(system, reference, strict=True)]
    np.testing.assert_allclose(found, expected)

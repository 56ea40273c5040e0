import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scldm.evaluation.metrics import nearest as module
from scldm.evaluation.metrics.nearest import Neighbourhoods, nearest, squared_distances


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(50.0, 1.0, size=(70, 4)), rng.normal(50.4, 1.2, size=(53, 4))


@pytest.fixture
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(module, "_BLOCK_COLUMNS", 9)


def test_nearest_matches_scikit_learn_in_blocks(clouds, small_blocks):
    points, among = clouds
    distances, indices = NearestNeighbors(n_neighbors=4).fit(among).kneighbors(points)
    found = nearest(points, among, 4)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)
    # with no query given, a point is not its own neighbour
    distances, indices = NearestNeighbors(n_neighbors=3).fit(points).kneighbors()
    found = nearest(points, points, 3, exclude_self=True)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)


def test_blocks_do_not_change_neighbours(clouds, monkeypatch):
    whole = Neighbourhoods.find(*clouds)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(module, "_BLOCK_COLUMNS", 9)
    parts = Neighbourhoods.find(*clouds)
    for name in ("reference_to_reference", "system_to_system", "reference_to_system", "system_to_reference"):
        np.testing.assert_array_equal(getattr(whole, name).indices, getattr(parts, name).indices)
        np.testing.assert_array_equal(getattr(whole, name).distances, getattr(parts, name).distances)
    np.testing.assert_array_equal(whole.system_in_reference_balls, parts.system_in_reference_balls)
    np.testing.assert_array_equal(whole.reference_in_system_balls, parts.reference_in_system_balls)


def test_copies_are_at_distance_zero_far_from_the_origin(small_blocks):
    points = np.random.default_rng(1).normal(1e6, 1.0, size=(40, 5))
    order = np.random.default_rng(2).permutation(40)
    found = nearest(points, points[order], 1)
    np.testing.assert_array_equal(found.distances, np.zeros((40, 1)))
    np.testing.assert_array_equal(order[found.indices[:, 0]], np.arange(40))


def test_equally_near_points_come_in_their_order(small_blocks):
    found = nearest(np.array([[0.0]]), np.array([[1.0], [-1.0], [2.0], [1.0]]), 3)
    np.testing.assert_array_equal(found.indices, [[0, 1, 3]])
    np.testing.assert_array_equal(found.distances, [[1.0, 1.0, 1.0]])


def test_fewer_points_than_neighbours_and_none_at_all():
    assert nearest(np.zeros((2, 1)), np.ones((3, 1)), 5).indices.shape == (2, 3)
    assert nearest(np.zeros((3, 1)), np.zeros((3, 1)), 5, exclude_self=True).indices.shape == (3, 2)
    assert nearest(np.zeros((0, 1)), np.zeros((3, 1))).distances.shape == (0, 1)
    with pytest.raises(ValueError, match="no other point"):
        nearest(np.zeros((1, 2)), np.zeros((1, 2)), exclude_self=True)


def test_balls_are_counted_as_a_double_loop_would(clouds, small_blocks):
    reference, system = clouds
    near = Neighbourhoods.find(reference, system, n_neighbours=3)
    between = np.sqrt(((system[:, None] - reference) ** 2).sum(axis=-1))
    radii = near.reference_to_reference.distances[:, 2]
    np.testing.assert_array_equal(near.system_in_reference_balls, (between <= radii).sum(axis=1))
    radii = near.system_to_system.distances[:, 2]
    np.testing.assert_array_equal(near.reference_in_system_balls, (radii >= between.T).sum(axis=1))


def test_the_surface_of_a_ball_belongs_to_it(small_blocks):
    # copies of the reference lie exactly on the surface of the balls whose radius they define
    rng = np.random.default_rng(3)
    reference = rng.normal(1e3, 1.0, size=(60, 6))
    near = Neighbourhoods.find(reference, reference.copy(), n_neighbours=2)
    within = near.reference_to_reference
    in_ball = np.zeros((60, 60), dtype=bool)
    in_ball[np.arange(60)[:, None], within.indices] = True
    expected = in_ball.sum(axis=0) + 1  # the balls of others, and its own
    np.testing.assert_array_equal(near.system_in_reference_balls, expected)


def test_known_neighbours_of_the_reference_are_used(clouds):
    reference, system = clouds
    known = nearest(reference, reference, 5, exclude_self=True)
    near = Neighbourhoods.find(reference, system, within_reference=known)
    assert near.reference_to_reference is known
    np.testing.assert_array_equal(
        near.system_in_reference_balls, Neighbourhoods.find(reference, system).system_in_reference_balls
    )


def test_squared_distances_are_those_of_the_differences(clouds):
    x, y = clouds
    np.testing.assert_allclose(squared_distances(x, y), ((x[:, None] - y) ** 2).sum(axis=-1), atol=1e-9)
    assert squared_distances(x, x).min() >= 0


def test_no_matrix_is_larger_than_a_block(clouds, small_blocks, monkeypatch):
    shapes = []

    def recorded(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        shapes.append((len(x), len(y)))
        return squared_distances(x, y)

    monkeypatch.setattr(module, "squared_distances", recorded)
    Neighbourhoods.find(*clouds)
    assert max(rows for rows, _ in shapes) == 16
    assert max(columns for _, columns in shapes) == 9

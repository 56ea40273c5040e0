import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from scldm.evaluation.metrics import nearest as module
from scldm.evaluation.metrics.nearest import N_KNOWN, NearestOfPool, Neighbourhoods, nearest, squared_distances


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
    points = np.concatenate(clouds)
    whole = NearestOfPool.find(points)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(module, "_BLOCK_COLUMNS", 9)
    parts = NearestOfPool.find(points)
    assert whole.indices.shape == (123, N_KNOWN)
    np.testing.assert_array_equal(whole.indices, parts.indices)
    np.testing.assert_array_equal(whole.distances, parts.distances)


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


def as_a_double_loop_would(points: np.ndarray, system: np.ndarray, reference: np.ndarray, k: int) -> list[float]:
    """Accuracy, precision, recall, density and coverage of one draw, straight from their definitions."""
    between = [[float(np.sqrt(((a - b) ** 2).sum())) for b in points] for a in points]
    ours, theirs = (np.flatnonzero(side).tolist() for side in (system, reference))

    def vote(i: int, own: list[int]) -> float:
        others = [j for j in ours + theirs if j != i]
        least = min(between[i][j] for j in others)
        voters = [j in own for j in others if between[i][j] == least]
        return sum(voters) / len(voters)

    def ball(i: int, own: list[int], others: list[int]) -> set[int]:
        within = sorted(between[i][j] for j in own if j != i)
        return {j for j in others if between[i][j] <= within[min(k, len(within)) - 1]}

    votes = [vote(i, ours) for i in ours] + [vote(i, theirs) for i in theirs]
    of_reference = [ball(i, theirs, ours) for i in theirs]
    of_system = [ball(i, ours, theirs) for i in ours]
    n_inside = sum(len(members) for members in of_reference)
    return [
        float(np.mean(votes)),
        len(set().union(*of_reference)) / len(ours),
        len(set().union(*of_system)) / len(theirs),
        n_inside / (min(k, len(theirs) - 1) * len(ours)),
        float(np.mean([len(members) > 0 for members in of_reference])),
    ]


def pool_of(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "continuous":
        return np.concatenate([rng.normal(50.0, 1.0, size=(50, 4)), rng.normal(50.4, 1.2, size=(40, 4))])
    if kind == "far from the origin":
        return rng.normal(1e6, 1.0, size=(90, 4))
    if kind == "copies":
        return rng.permutation(np.repeat(rng.normal(size=(30, 3)), 3, axis=0))
    return rng.integers(0, 6, size=(90, 2)).astype(np.float64)  # many copies, and many at the same distance


def rows_of(known: NearestOfPool, system: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    found = Neighbourhoods.find(known, system, reference, k)
    return np.stack([found.accuracy, found.precision, found.recall, found.density, found.coverage], axis=1)


# with 500 all others are known, with 2 always too few
@pytest.mark.parametrize("n_known", [2, 500])
@pytest.mark.parametrize("kind", ["continuous", "far from the origin", "copies", "grid"])
def test_every_row_is_what_a_double_loop_over_the_chosen_points_finds(draw, small_blocks, kind, n_known):
    points = pool_of(kind)
    known = NearestOfPool.find(points, n_known)
    for n_system, n_reference, k in ((40, 40, 5), (30, 12, 5), (12, 30, 3)):
        system, reference = draw(90, n_system, n_reference, n_rows=2)
        expected = [as_a_double_loop_would(points, s, r, k) for s, r in zip(system, reference, strict=True)]
        np.testing.assert_allclose(rows_of(known, system, reference, k), expected, rtol=1e-12)


@pytest.mark.parametrize("n_known", [8, 12, N_KNOWN])
@pytest.mark.parametrize("kind", ["continuous", "far from the origin"])
def test_of_some_points_enough_neighbours_are_known_and_of_others_not(draw, kind, n_known):
    points = pool_of(kind)
    system, reference = draw(90, 40, 40, n_rows=6)
    expected = [as_a_double_loop_would(points, s, r, 5) for s, r in zip(system, reference, strict=True)]
    known = NearestOfPool.find(points, n_known)
    np.testing.assert_allclose(rows_of(known, system, reference, 5), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["one point", "fours on a grid"])
def test_ties_beyond_the_last_known_neighbour_count(draw, kind):
    if kind == "one point":
        points, n_known = np.zeros((200, 2)), N_KNOWN
    else:
        points, n_known = np.indices((20, 10)).reshape(2, -1).T // 2 * 1.0, 8
    system, reference = draw(200, 100, 100, n_rows=2)
    expected = [as_a_double_loop_would(points, s, r, 5) for s, r in zip(system, reference, strict=True)]
    if kind == "one point":  # of 199 others 99 are on the same side, and everything is in every ball
        assert expected[0] == pytest.approx([99 / 199, 1.0, 1.0, 20.0, 1.0])
    known = NearestOfPool.find(points, n_known)
    np.testing.assert_allclose(rows_of(known, system, reference, 5), expected, rtol=1e-12)


def test_fewer_points_than_a_ball_needs(draw):
    points = pool_of("continuous")
    for n_known in (2, N_KNOWN):
        known = NearestOfPool.find(points, n_known)
        for s, r in zip(*draw(90, 4, 2), strict=True):
            np.testing.assert_allclose(known.look(s, r), as_a_double_loop_would(points, s, r, 5), rtol=1e-12)


def test_all_points_are_looked_at_only_where_too_few_are_known(draw, monkeypatch):
    points, looked_at = pool_of("continuous"), []
    alone = NearestOfPool._alone

    def recorded(self: NearestOfPool, point: int, *rest) -> tuple[float, bool, np.ndarray]:
        looked_at.append(point)
        return alone(self, point, *rest)

    monkeypatch.setattr(NearestOfPool, "_alone", recorded)
    (system,), (reference,) = draw(90, 45, 45, n_rows=1)
    known = NearestOfPool.find(points)
    known.look(system, reference)
    assert looked_at == []
    NearestOfPool.find(points, 4).look(system, reference)
    assert sorted(looked_at) == list(range(90))
    # a quarter of the pool on either side: half of the known neighbours of a point are not drawn
    looked_at.clear()
    (system,), (reference,) = draw(90, 23, 23, n_rows=1)
    few = NearestOfPool.find(points, 16)
    few.look(system, reference)
    side = np.where(system, 1, np.where(reference, 2, 0))
    # others may be as far as the last one
    n_own = (side[few.indices[:, :-1]] == side[:, None]).sum(axis=1)
    np.testing.assert_array_equal(sorted(looked_at), np.flatnonzero((side > 0) & (n_own < 5)))
    assert 0 < len(looked_at) < 46


def test_the_surface_of_a_ball_belongs_to_it(one_row, small_blocks):
    # copies of the reference lie exactly on the surface of the balls whose radius they define
    reference = np.random.default_rng(3).normal(1e3, 1.0, size=(60, 6))
    points = np.concatenate([reference, reference])
    found = Neighbourhoods.find(NearestOfPool.find(points), *one_row(60, 60), n_neighbours=2)
    # every ball holds copies of its centre and of its two neighbours
    assert (found.precision[0], found.recall[0], found.coverage[0]) == (1.0, 1.0, 1.0)
    assert found.density[0] == pytest.approx(3 / 2)


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
    NearestOfPool.find(np.concatenate(clouds))
    assert max(rows for rows, _ in shapes) == 16
    assert max(columns for _, columns in shapes) == 9

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.nearest import NearestOfPool
from scldm.evaluation.metrics.two_sample import RIDGE, auroc, left_out_scores, quadratic_features

NAMES = ("accuracy", "precision", "recall", "density", "coverage")


def figures(real: np.ndarray, generated: np.ndarray, n_neighbours: int = 5) -> dict[str, float]:
    system = np.arange(len(real) + len(generated)) >= len(real)
    known = NearestOfPool.find(np.concatenate([real, generated]))
    return dict(zip(NAMES, known.look(system, ~system, n_neighbours), strict=True))


def accuracy(x: np.ndarray, y: np.ndarray) -> float:
    return figures(x, y)["accuracy"]


def test_nearest_neighbour_accuracy_leaves_one_out_by_hand():
    # nearest others: 0 -> 1 and 1 -> 0 (same sample); 10 -> 10.5, 2.5 -> 1 and 10.5 -> 10 (the other sample)
    assert accuracy(np.array([[0.0], [1.0], [10.0]]), np.array([[2.5], [10.5]])) == pytest.approx(2 / 5)


def test_nearest_neighbour_accuracy_matches_scikit_learn(clouds):
    points, sample = np.concatenate(clouds), np.repeat([0, 1], [70, 50])
    # with no query given, a point is not its own neighbour
    nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(return_distance=False)[:, 0]
    assert accuracy(*clouds) == pytest.approx((sample[nearest] == sample).mean())
    assert KNeighborsClassifier(1).fit(points, sample).score(points, sample) == 1.0  # what a leak would give


def test_nearest_neighbour_accuracy_between_chance_and_certainty():
    x, y = np.random.default_rng(0).normal(size=(2, 800, 3))
    assert accuracy(x, y) == pytest.approx(0.5, abs=0.04)
    assert accuracy(x, y + 100.0) == 1.0


def test_nearest_neighbour_accuracy_of_copies_is_zero_and_ties_share_the_vote(clouds):
    x = clouds[0]
    assert accuracy(x, x.copy()) == 0.0
    # all six points coincide: of the five others, two are of the same sample
    assert accuracy(np.zeros((3, 2)), np.zeros((3, 2))) == pytest.approx(2 / 5)


def test_equal_distributions_score_high_everywhere():
    found = figures(*np.random.default_rng(0).normal(size=(2, 600, 2)))
    assert found["precision"] > 0.9
    assert found["recall"] > 0.9
    assert found["density"] == pytest.approx(1.0, abs=0.1)
    # each real cell's ball holds 5 real cells: none of 600 others with probability 2^-5
    assert found["coverage"] == pytest.approx(1 - 2**-5, abs=0.02)


def test_dropping_a_mode_lowers_recall_and_coverage_only():
    rng = np.random.default_rng(0)
    two_modes = np.concatenate([rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 100])
    found = figures(two_modes, rng.normal(size=(120, 2)) * 0.9)
    assert found["precision"] > 0.9
    assert 0.4 < found["recall"] <= 0.5
    assert 0.4 < found["coverage"] <= 0.5
    assert found["density"] > 0.8


def test_outliers_lower_precision_and_density_only():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(120, 2))
    generated = np.concatenate([rng.normal(size=(90, 2)), rng.uniform(1e3, 1e6, size=(30, 2))])
    found = figures(real, generated)
    assert 0.65 < found["precision"] <= 0.75
    assert found["density"] < 0.9
    assert found["recall"] > 0.9
    assert found["coverage"] > 0.85


def test_density_tells_the_crowded_middle_from_the_whole():
    # in the middle of the real cells every generated cell is in many balls; precision cannot see it
    rng = np.random.default_rng(1)
    real = rng.normal(size=(300, 2))
    crowded = figures(real, rng.normal(size=(300, 2)) * 0.1)
    assert crowded["precision"] == 1.0
    assert crowded["coverage"] < 0.2


def test_one_typical_cell_made_again_and_again_is_precise_and_nothing_else():
    real = np.random.default_rng(1).normal(size=(120, 2))
    found = figures(real, np.tile(real[:1] + 1e-3, (120, 1)))
    assert (found["precision"], found["recall"]) == (1.0, 0.0)
    assert found["coverage"] < 0.1
    assert found["accuracy"] > 0.9


def test_manifolds_by_hand():
    # with one neighbour the real balls are [-1, 1], [0, 2] and [1, 19]
    real, generated = np.array([[0.0], [1.0], [10.0]]), np.array([[-0.9], [1.9], [17.0], [19.5], [-1.1]])
    found = figures(real, generated, n_neighbours=1)
    # generated cells are in 1, 2, 1, 0 and 0 of them
    assert found["precision"] == pytest.approx(3 / 5)
    assert found["density"] == pytest.approx(4 / 5)
    assert found["coverage"] == 1.0
    # generated balls: [-1.1, -0.7], [-0.9, 4.7], [14.5, 19.5], [17, 22], [-1.3, -0.9]
    assert found["recall"] == pytest.approx(2 / 3)


def test_precision_and_recall_swap_with_their_arguments(clouds):
    one, other = figures(*clouds), figures(*clouds[::-1])
    assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])


def test_the_metrics_of_neighbourhoods_are_those_of_every_draw(clouds, draw, compare_points):
    points = np.concatenate(clouds)
    system, reference = draw(120, 40, 40)
    comparison = compare_points(points, system, reference)
    expected = [figures(points[r], points[s]) for s, r in zip(system, reference, strict=True)]
    for name in NAMES:
        metric = METRICS["nearest_neighbour_accuracy" if name == "accuracy" else name]
        np.testing.assert_allclose(metric.compute(comparison, "pca"), [one[name] for one in expected], err_msg=name)


@pytest.mark.parametrize("decimals", [8, 1])
def test_auroc_matches_scikit_learn_with_and_without_ties(decimals):
    rng = np.random.default_rng(4)
    negative, positive = np.round(rng.normal(size=60), decimals), np.round(rng.normal(0.5, 1.0, size=45), decimals)
    truth, scores = np.repeat([0, 1], [60, 45]), np.concatenate([negative, positive])
    assert auroc(negative, positive) == pytest.approx(roc_auc_score(truth, scores))
    assert auroc(positive, negative) == pytest.approx(1 - roc_auc_score(truth, scores))


def test_quadratic_features_are_standardised_squares_and_products(clouds):
    points = np.column_stack([clouds[0] * [1.0, 5.0, 1.0, 1.0] + 3.0, np.ones(70)])
    features = quadratic_features(points)
    # a one; five coordinates, their squares, and ten products of two
    assert features.shape == (70, 1 + 5 + 5 + 10)
    np.testing.assert_array_equal(features[:, 0], 1.0)
    np.testing.assert_allclose(features[:, 1:].mean(axis=0), 0.0, atol=1e-12)
    spread = features[:, 1:].std(axis=0)
    is_constant = np.isin(np.arange(20), [4, 9, 13, 16, 18, 19])  # all that the last coordinate has a part in
    np.testing.assert_allclose(spread, np.where(is_constant, 0.0, 1.0), atol=1e-12)
    standardised = (points[:, :2] - points[:, :2].mean(axis=0)) / points[:, :2].std(axis=0)
    product = np.clip(standardised, -3.0, 3.0).prod(axis=1)
    np.testing.assert_allclose(features[:, 11], (product - product.mean()) / product.std())


def test_only_the_first_coordinates_have_products():
    points = np.random.default_rng(0).normal(size=(50, 30))
    assert quadratic_features(points).shape == (50, 1 + 30 + 30 + 45)


def test_left_out_scores_are_those_of_a_ridge_that_has_not_seen_the_point():
    rng = np.random.default_rng(7)
    reference, system = rng.normal(size=(2, 20, 30))  # more features than points on a side
    features, side = np.concatenate([reference, system]), np.repeat([-1.0, 1.0], 20)
    expected = []
    for i in range(40):
        others = np.arange(40) != i
        scatter = features[others].T @ features[others] + RIDGE * 40 * np.eye(30)
        expected.append(features[i] @ np.linalg.solve(scatter, features[others].T @ side[others]))
    np.testing.assert_allclose(np.concatenate(left_out_scores(reference, system)), expected, rtol=1e-6, atol=1e-9)


def test_a_classifier_of_nothing_but_noise_remembers_nothing():
    rng = np.random.default_rng(7)
    fitted, left_out = [], []
    for reference, system in rng.normal(size=(20, 2, 20, 30)):  # more features than points on a side
        features, side = np.concatenate([reference, system]), np.repeat([-1.0, 1.0], 20)
        weights = np.linalg.solve(features.T @ features + RIDGE * 40 * np.eye(30), features.T @ side)
        fitted.append(auroc(reference @ weights, system @ weights))
        left_out.append(auroc(*left_out_scores(reference, system)))
    assert np.mean(fitted) > 0.95
    assert np.mean(left_out) == pytest.approx(0.5, abs=0.06)


def test_a_point_that_nothing_is_known_of_has_a_finite_score():
    reference, system = np.eye(6)[:3] * 1e9, np.eye(6)[3:] * 1e9
    assert np.isfinite(np.concatenate(left_out_scores(reference, system))).all()


def test_a_classifier_tells_different_clouds_apart_and_equal_ones_not(one_row, compare_points):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 300, 5))

    def told_apart(one: np.ndarray, other: np.ndarray) -> float:
        comparison = compare_points(np.concatenate([one, other]), *one_row(300, 300))
        return METRICS["classifier_auroc"].compute(comparison, "pca")[0]

    assert told_apart(x, y) == pytest.approx(0.5, abs=0.06)
    assert told_apart(x, 1.6 * y) > 0.65
    # the same mean and spread of every feature: only an interaction of two tells them apart
    y[:, 1] = np.abs(y[:, 1]) * np.sign(y[:, 0])
    assert told_apart(x, y) > 0.65
    assert told_apart(x, x + 10.0) > 0.99
    # every cell is there twice, once on each side: memory would give below one half, and a leak cannot help
    assert told_apart(x, x.copy()) < 0.55


def test_every_row_of_the_classifier_is_of_the_chosen_cells(clouds, draw, compare_points):
    points = np.concatenate(clouds)
    system, reference = draw(120, 40, 40)
    features = quadratic_features(points)  # of the whole pool, so that it is the same in every draw
    expected = [auroc(*left_out_scores(features[r], features[s])) for s, r in zip(system, reference, strict=True)]
    found = METRICS["classifier_auroc"].compute(compare_points(points, system, reference), "pca")
    np.testing.assert_allclose(found, expected)
    assert len(np.unique(found)) == 4

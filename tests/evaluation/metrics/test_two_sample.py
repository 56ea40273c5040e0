import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from scldm.evaluation.bootstrap import draw_weights
from scldm.evaluation.metrics.nearest import Neighbourhoods
from scldm.evaluation.metrics.two_sample import (
    auroc,
    nearest_neighbour_votes,
    out_of_fold_scores,
)


def accuracy(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.concatenate(nearest_neighbour_votes(Neighbourhoods.find(x, y))).mean())


def test_nearest_neighbour_accuracy_leaves_one_out_by_hand():
    # nearest others: 0 -> 1 and 1 -> 0 (same sample); 10 -> 10.5, 2.5 -> 1 and 10.5 -> 10 (the other sample)
    votes = nearest_neighbour_votes(Neighbourhoods.find(np.array([[0.0], [1.0], [10.0]]), np.array([[2.5], [10.5]])))
    np.testing.assert_array_equal(votes[0], [1, 1, 0])
    np.testing.assert_array_equal(votes[1], [0, 0])


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


def figures(real: np.ndarray, generated: np.ndarray, n_neighbours: int = 5) -> dict[str, float]:
    near = Neighbourhoods.find(real, generated, n_neighbours)
    indicators = {
        "precision": near.precision,
        "recall": near.recall,
        "density": near.density,
        "coverage": near.coverage,
    }
    return {name: float(values.mean()) for name, values in indicators.items()}


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


def test_manifolds_by_hand():
    # with one neighbour the real balls are [-1, 1], [0, 2] and [1, 19]
    real, generated = np.array([[0.0], [1.0], [10.0]]), np.array([[-0.9], [1.9], [17.0], [19.5], [-1.1]])
    near = Neighbourhoods.find(real, generated, n_neighbours=1)
    np.testing.assert_array_equal(near.precision, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(near.density, [1, 2, 1, 0, 0])
    np.testing.assert_array_equal(near.coverage, [1, 1, 1])
    # generated balls: [-1.1, -0.7], [-0.9, 4.7], [14.5, 19.5], [17, 22], [-1.3, -0.9]
    np.testing.assert_array_equal(near.recall, [1, 1, 0])


def test_precision_and_recall_swap_with_their_arguments(clouds):
    one, other = figures(*clouds), figures(*clouds[::-1])
    assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])


@pytest.mark.parametrize("decimals", [8, 1])
def test_auroc_matches_scikit_learn_with_weights_and_ties(decimals):
    rng = np.random.default_rng(4)
    negative, positive = np.round(rng.normal(size=60), decimals), np.round(rng.normal(0.5, 1.0, size=45), decimals)
    weights_n, weights_p = draw_weights(60, rng, 10), draw_weights(45, rng, 10)
    estimate = auroc(negative, positive, weights_n, weights_p)
    truth, scores = np.repeat([0, 1], [60, 45]), np.concatenate([negative, positive])
    assert estimate.value == pytest.approx(roc_auc_score(truth, scores))
    for replicate, a, b in zip(estimate.replicates, weights_n, weights_p, strict=True):
        assert replicate == pytest.approx(roc_auc_score(truth, scores, sample_weight=np.concatenate([a, b])))


def test_boosted_trees_tell_different_clouds_apart_and_equal_ones_not():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 300, 5))
    weights = draw_weights(300, rng, 5), draw_weights(300, rng, 5)
    assert auroc(*out_of_fold_scores(x, y), *weights).value == pytest.approx(0.5, abs=0.06)
    # the same mean and spread of every feature: only an interaction of two tells them apart
    y[:, 1] = np.abs(y[:, 1]) * np.sign(y[:, 0])
    assert auroc(*out_of_fold_scores(x, y), *weights).value > 0.65
    assert auroc(*out_of_fold_scores(x, x + 10.0), *weights).value > 0.99


def test_scores_come_from_trees_that_have_not_seen_the_cell():
    # every cell is there twice, once on each side: a leak between folds cannot help, memory would give below one half
    x = np.random.default_rng(6).normal(size=(200, 4))
    scores = out_of_fold_scores(x, x.copy())
    weights = np.ones((1, 200), dtype=np.float32)
    assert auroc(*scores, weights, weights).value < 0.55

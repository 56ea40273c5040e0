import numpy as np
import ot
import pytest

from scldm.evaluation.metrics.transport import from_potentials, sliced_potentials, transport_potentials, wasserstein2


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


def test_potentials_are_a_dual_solution(clouds):
    x, y = clouds
    u, v = transport_potentials(x, y)
    cost = ((x[:, None] - y) ** 2).sum(axis=-1)
    assert (u[:, None] + v <= cost + 1e-9).all()
    assert u.mean() + v.mean() == pytest.approx(ot.emd2([], [], cost))


def test_the_interval_of_wasserstein_is_that_of_transport_solved_anew(clouds, weights_for):
    # the first-order replicates against exact transport between resampled clouds
    x, y = np.random.default_rng(0).normal(size=(2, 150, 3))
    y += 1.0
    weights_x, weights_y = weights_for(150, 150, n_resamples=120)
    estimate = from_potentials(*transport_potentials(x, y), weights_x, weights_y)
    assert estimate.value == pytest.approx(wasserstein2(x, y))
    cost = ((x[:, None] - y) ** 2).sum(axis=-1)
    anew = []
    for a, b in zip(weights_x.astype(float), weights_y.astype(float), strict=True):
        anew.append(np.sqrt(ot.emd2(a / a.sum(), b / b.sum(), cost)))
    assert np.std(estimate.replicates) == pytest.approx(np.std(anew), rel=0.15)
    assert np.corrcoef(estimate.replicates, anew)[0, 1] > 0.9


def test_sliced_wasserstein_in_one_dimension_is_exact(weights_for):
    x, y = np.random.default_rng(0).normal(size=(2, 80, 1)) * [[[1.0]], [[3.0]]]
    weights = weights_for(80, 80)
    sliced = from_potentials(*sliced_potentials(x, y, n_projections=4), *weights)
    exact = from_potentials(*transport_potentials(x, y), *weights)
    assert sliced.value == pytest.approx(exact.value)
    np.testing.assert_allclose(sliced.replicates, exact.replicates, rtol=0.05)


def test_sliced_wasserstein_matches_pot_and_counts_a_shift_as_wasserstein_does(clouds):
    x = clouds[0][:50]
    y = clouds[1]
    u, v = sliced_potentials(x, y, n_projections=64, seed=5)
    expected = ot.sliced_wasserstein_distance(x, y, n_projections=64, seed=5) ** 2 * 4
    assert u.mean() + v.mean() == pytest.approx(expected)
    u, v = sliced_potentials(x, x[::-1] + np.array([3.0, 0.0, -4.0, 0.0]), n_projections=4000)
    assert np.sqrt(u.mean() + v.mean()) == pytest.approx(5.0, rel=0.03)
    with pytest.raises(ValueError, match="equally many cells, not 50 and 49"):
        sliced_potentials(x, y[:49])


def test_sliced_potentials_are_a_dual_solution_on_every_line():
    x, y = np.random.default_rng(2).normal(size=(2, 40, 1))
    y += 0.7
    u, v = sliced_potentials(x, y, n_projections=1)
    assert (u[:, None] + v <= (x - y.T) ** 2 + 1e-9).all()
    assert u.mean() + v.mean() == pytest.approx(((np.sort(x, axis=0) - np.sort(y, axis=0)) ** 2).mean())

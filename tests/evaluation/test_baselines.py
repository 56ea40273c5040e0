import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.baselines import IndependentNegativeBinomial


def draw(rng: np.random.Generator, depth: np.ndarray, rates: np.ndarray, dispersion: float) -> csr_matrix:
    mean = depth[:, None] * rates
    return csr_matrix(rng.poisson(mean * rng.gamma(1 / dispersion, dispersion, size=mean.shape)).astype(np.float32))


def test_it_recovers_rates_and_dispersions_per_label():
    rng = np.random.default_rng(0)
    depth = rng.uniform(500, 3000, 6000)
    labels = rng.integers(0, 2, 6000)
    rates = np.linspace([0.5, 1.5], [1.5, 0.5], 100).T / 100
    counts = draw(rng, depth, rates[labels], dispersion=0.3)
    fitted = IndependentNegativeBinomial.fit(counts, labels)
    np.testing.assert_allclose(fitted.rates, rates, rtol=0.06)
    np.testing.assert_allclose(fitted.dispersions.mean(axis=1), 0.3, rtol=0.03)
    np.testing.assert_allclose(fitted.dispersions, 0.3, rtol=0.25)


def test_generated_cells_have_the_means_and_variances_of_each_label():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 3000)
    depth = np.full(6000, 400.0)
    rates = np.where(labels[:, None] == 0, np.full(40, 1 / 40), np.linspace(0.5, 1.5, 40) / 40)
    counts = draw(rng, depth, rates, dispersion=0.5)
    sampled, donors = IndependentNegativeBinomial.fit(counts, labels).sample(6000, rng)
    for label in (0, 1):
        real, fake = counts[labels == label].toarray(), sampled[labels[donors] == label].toarray()
        np.testing.assert_allclose(fake.mean(axis=0), real.mean(axis=0), rtol=0.1)
        assert fake.var(axis=0).sum() == pytest.approx(real.var(axis=0).sum(), rel=0.1)


def test_it_knows_no_correlation_inside_a_label():
    rng = np.random.default_rng(0)
    programme = np.exp(rng.normal(size=(3000, 1)) * np.repeat([0.8, 0.0], [2, 98]))
    counts = csr_matrix(rng.poisson(20 * programme).astype(np.float32))
    sampled, _ = IndependentNegativeBinomial.fit(counts, np.zeros(3000, dtype=np.int64)).sample(3000, rng)
    assert np.corrcoef(counts.toarray()[:, :2].T)[0, 1] > 0.8
    assert abs(np.corrcoef(sampled.toarray()[:, :2].T)[0, 1]) < 0.15


def test_labels_and_depths_come_from_training_cells():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [90, 30])
    counts = csr_matrix(rng.poisson(np.where(labels, 50, 5)[:, None] * np.ones(10)).astype(np.float32))
    fitted = IndependentNegativeBinomial.fit(counts, labels)
    sampled, donors = fitted.sample(120, rng)
    assert sorted(donors) == list(range(120))  # as many as there are: every training cell once
    totals = np.asarray(sampled.sum(axis=1)).ravel()
    assert np.corrcoef(totals, fitted.depths[donors])[0, 1] > 0.98
    more, donors = fitted.sample(500, rng)
    assert more.shape == (500, 10)
    assert more.dtype == np.float32
    assert (labels[donors] == 1).mean() == pytest.approx(0.25, abs=0.06)


def test_a_label_with_few_cells_borrows_the_pooled_dispersion_and_a_silent_gene_stays_silent():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [200, 2])
    counts = draw(rng, np.full(202, 300.0), np.full((202, 5), 0.2), dispersion=0.5).toarray()
    counts[:, 4] = 0
    fitted = IndependentNegativeBinomial.fit(csr_matrix(counts), labels)
    np.testing.assert_allclose(fitted.dispersions[1], fitted.dispersions[0], rtol=0.1)
    assert fitted.dispersions[0, 4] == 0
    assert fitted.sample(50, rng)[0][:, 4].nnz == 0


def test_it_is_a_function_of_the_generator_of_random_numbers():
    counts = csr_matrix(np.random.default_rng(0).poisson(3.0, size=(40, 6)).astype(np.float32))
    fitted = IndependentNegativeBinomial.fit(counts, np.zeros(40, dtype=np.int64))
    one, two, other = (fitted.sample(30, np.random.default_rng(seed))[0].toarray() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.baselines import BASELINES, IndependentNegativeBinomial, PCAGaussian
from scldm.evaluation.cells import log1p_cp10k
from scldm.evaluation.labels import joint_labels


def draw(rng: np.random.Generator, depth: np.ndarray, rates: np.ndarray, dispersion: float) -> csr_matrix:
    mean = depth[:, None] * rates
    return csr_matrix(rng.poisson(mean * rng.gamma(1 / dispersion, dispersion, size=mean.shape)).astype(np.float32))


# independent negative binomials ---------------------------------------------------------------------------------------


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


def test_a_label_with_few_cells_borrows_the_pooled_dispersion_and_a_silent_gene_stays_silent():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [200, 2])
    counts = draw(rng, np.full(202, 300.0), np.full((202, 5), 0.2), dispersion=0.5).toarray()
    counts[:, 4] = 0
    fitted = IndependentNegativeBinomial.fit(csr_matrix(counts), labels)
    np.testing.assert_allclose(fitted.dispersions[1], fitted.dispersions[0], rtol=0.1)
    assert fitted.dispersions[0, 4] == 0
    assert fitted.sample(50, rng)[0][:, 4].nnz == 0


# Gaussian in principal components -------------------------------------------------------------------------------------


def programmes(rng: np.random.Generator, n_cells: int, n_genes: int = 80, depth: float = 4000.0) -> csr_matrix:
    """Cells in which the first half of the genes rises and falls together, and the second half as well."""
    activity = np.repeat(rng.normal(size=(n_cells, 2)), n_genes // 2, axis=1)
    rates = np.exp(0.6 * activity)
    return csr_matrix(rng.poisson(depth * rates / rates.sum(axis=1, keepdims=True)).astype(np.float32))


def test_scores_of_each_label_have_its_mean_and_covariance():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    counts = np.vstack([programmes(rng, 2000).toarray(), rng.poisson(50.0, size=(2000, 80))])
    fitted = PCAGaussian.fit(csr_matrix(counts.astype(np.float32)), labels)
    scores = (log1p_cp10k(csr_matrix(counts)) - fitted.centre) @ fitted.components.T
    scores = np.asarray(scores)
    np.testing.assert_allclose(fitted.components @ fitted.components.T, np.eye(50), atol=1e-8)
    for label in (0, 1):
        own = scores[labels == label]
        np.testing.assert_allclose(fitted.means[label], own.mean(axis=0), atol=1e-8)
        covariance = fitted.factors[label] @ fitted.factors[label].T
        np.testing.assert_allclose(covariance, np.cov(own.T), atol=1e-8)


def test_it_knows_which_genes_go_together_inside_a_label():
    rng = np.random.default_rng(0)
    counts = programmes(rng, 3000)
    sampled, _ = PCAGaussian.fit(counts, np.zeros(3000, dtype=np.int64)).sample(3000, rng)
    real, fake = np.corrcoef(counts.toarray().T), np.corrcoef(sampled.toarray().T)
    off_diagonal = ~np.eye(80, dtype=bool)
    assert real[:40, :40][off_diagonal[:40, :40]].min() > 0.5
    np.testing.assert_allclose(fake[off_diagonal], real[off_diagonal], atol=0.15)
    np.testing.assert_allclose(sampled.mean(axis=0), counts.mean(axis=0), rtol=0.1)


@pytest.mark.parametrize(("n_cells", "share"), [(101, 1.0), (51, 0.5), (2, 0.01), (1, 0.0)])
def test_a_label_with_few_cells_takes_the_rest_of_its_covariance_from_all_labels(n_cells, share):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [600, n_cells])
    fitted = PCAGaussian.fit(programmes(rng, 600 + n_cells), labels)
    scores = np.asarray(log1p_cp10k(programmes(np.random.default_rng(0), 600 + n_cells)) - fitted.centre)
    scores = scores @ fitted.components.T
    residuals = scores - fitted.means[labels]
    pooled = residuals.T @ residuals / (600 + n_cells - 2)
    own = np.zeros((50, 50)) if n_cells == 1 else np.cov(scores[labels == 1].T)
    np.testing.assert_allclose(fitted.factors[1] @ fitted.factors[1].T, share * own + (1 - share) * pooled, atol=1e-8)


@pytest.mark.parametrize("shape", [(40, 6), (7, 30), (2, 5), (1, 5), (30, 1)])
def test_fewer_components_where_cells_or_genes_are_few(shape):
    rng = np.random.default_rng(0)
    counts = csr_matrix(1 + rng.poisson(20.0, size=shape).astype(np.float32))
    fitted = PCAGaussian.fit(counts, np.zeros(shape[0], dtype=np.int64))
    assert fitted.components.shape == (min(shape) - 1, shape[1])
    sampled, _ = fitted.sample(60, rng)
    np.testing.assert_allclose(sampled.sum(axis=1).mean(), counts.sum(axis=1).mean(), rtol=0.1)


def test_cells_that_do_not_differ_give_poisson_counts_at_their_rates():
    counts = csr_matrix(np.tile(np.array([[10.0, 30.0, 0.0, 60.0]], dtype=np.float32), (50, 1)))
    fitted = PCAGaussian.fit(counts, np.repeat([0, 1], 25))
    assert fitted.components.shape == (0, 4)
    sampled = fitted.sample(4000, np.random.default_rng(0))[0].toarray()
    np.testing.assert_allclose(sampled.mean(axis=0), [10, 30, 0, 60], rtol=0.02)
    np.testing.assert_allclose(sampled.var(axis=0), [10, 30, 0, 60], rtol=0.1)


def test_every_label_with_a_single_cell_is_that_cell_at_its_own_rates():
    counts = csr_matrix(np.array([[900, 100, 0], [100, 900, 0], [300, 300, 400]], dtype=np.float32))
    sampled, donors = PCAGaussian.fit(counts, np.arange(3)).sample(3000, np.random.default_rng(0))
    for donor in range(3):
        np.testing.assert_allclose(sampled[donors == donor].mean(axis=0), counts[donor].toarray(), rtol=0.05, atol=1.0)


def test_a_draw_that_is_negative_in_every_gene_gets_the_average_of_the_training_cells():
    rng = np.random.default_rng(0)
    fitted = PCAGaussian.fit(programmes(rng, 200), np.zeros(200, dtype=np.int64))
    # far below the centre along the sum of genes, which is seen from all components
    depths_of_despair = -1e4 * fitted.components.sum(axis=1, keepdims=True).T
    values = fitted.centre + depths_of_despair @ fitted.components
    proportions = fitted._proportions(depths_of_despair)
    assert proportions.sum() == pytest.approx(1.0)
    if (values <= 0).all():
        np.testing.assert_allclose(proportions[0], np.expm1(fitted.centre) / np.expm1(fitted.centre).sum())


# every baseline -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_labels_and_depths_come_from_training_cells(name):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [90, 30])
    counts = csr_matrix(rng.poisson(np.where(labels, 50, 5)[:, None] * np.ones(10)).astype(np.float32))
    fitted = BASELINES[name].fit(counts, labels)
    sampled, donors = fitted.sample(120, rng)
    assert sorted(donors) == list(range(120))  # as many as there are: every training cell once
    totals = np.asarray(sampled.sum(axis=1)).ravel()
    depths = np.asarray(counts.sum(axis=1)).ravel()
    assert np.corrcoef(totals, depths[donors])[0, 1] > 0.98
    more, donors = fitted.sample(500, rng)
    assert more.shape == (500, 10)
    assert more.dtype == np.float32
    assert (labels[donors] == 1).mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("name", BASELINES)
def test_it_is_a_function_of_the_generator_of_random_numbers(name):
    counts = csr_matrix(np.random.default_rng(0).poisson(3.0, size=(40, 6)).astype(np.float32))
    fitted = BASELINES[name].fit(counts, np.zeros(40, dtype=np.int64))
    one, two, other = (fitted.sample(30, np.random.default_rng(seed))[0].toarray() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("name", BASELINES)
def test_an_empty_cell_among_the_training_cells_gives_an_empty_cell(name):
    counts = np.random.default_rng(0).poisson(3.0, size=(40, 6)).astype(np.float32)
    counts[7] = 0
    sampled, donors = (
        BASELINES[name].fit(csr_matrix(counts), np.zeros(40, dtype=np.int64)).sample(40, np.random.default_rng(0))
    )
    totals = np.asarray(sampled.sum(axis=1)).ravel()
    assert totals[donors == 7] == 0
    assert (totals[donors != 7] > 0).all()


def test_they_stand_in_the_order_of_the_table_and_say_what_they_are():
    assert list(BASELINES) == ["independent_nb", "pca_gaussian"]
    assert len({kind.description for kind in BASELINES.values()}) == len(BASELINES)


def test_combinations_of_labels_are_numbered_and_a_missing_label_is_one():
    labels = pd.DataFrame({"a": ["x", "y", "x", None, "x"], "b": ["1", "1", "2", "1", "1"]}, dtype=object)
    np.testing.assert_array_equal(joint_labels(labels), [0, 2, 1, 3, 0])
    np.testing.assert_array_equal(joint_labels(labels.astype("category")), [0, 2, 1, 3, 0])
    np.testing.assert_array_equal(joint_labels(labels[[]]), [0, 0, 0, 0, 0])

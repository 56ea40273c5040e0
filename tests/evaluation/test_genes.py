import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.genes import (
    gene_correlations,
    gene_gene_agreement,
    gene_means,
    mean_absolute_error,
    pearson,
    zero_fractions,
)
from scldm.evaluation.space import FeatureSpace, log1p_cp10k


def test_means_and_zero_fractions_by_hand():
    matrix = np.array([[0, 1, 4], [0, 3, 0], [0, 0, 2], [0, 4, 0]], dtype=np.float32)
    np.testing.assert_allclose(gene_means(csr_matrix(matrix)), [0, 2, 1.5])
    np.testing.assert_allclose(zero_fractions(csr_matrix(matrix)), [1, 0.25, 0.5])


def test_a_stored_zero_is_a_zero():
    matrix = csr_matrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    matrix.data[0] = 0.0
    np.testing.assert_allclose(zero_fractions(matrix), [0.5, 0.0])


def test_pearson_matches_numpy_and_is_zero_for_a_constant():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson(x, np.ones(30)) == 0.0
    assert mean_absolute_error(np.array([1.0, 2.0]), np.array([2.0, 0.0])) == 1.5


def test_gene_correlations_match_numpy_and_silent_genes_have_none():
    values = np.random.default_rng(0).poisson(2.0, size=(40, 5)).astype(float)
    values[:, 3] = 0
    correlations = gene_correlations(csr_matrix(values), np.array([4, 0, 3]))
    assert correlations[0, 1] == pytest.approx(np.corrcoef(values[:, 4], values[:, 0])[0, 1])
    np.testing.assert_allclose(correlations[2], 0.0)


def test_gene_gene_agreement_of_constructed_matrices():
    rng = np.random.default_rng(0)
    together = rng.normal(size=(4000, 2))[:, [0, 0, 1, 1]] + 0.3 * rng.normal(size=(4000, 4))
    genes = np.arange(4)
    same, shuffled = csr_matrix(together[:2000]), csr_matrix(together[2000:])
    assert gene_gene_agreement(same, shuffled, genes) > 0.99
    # other pairs of genes go together: of six pairs two are high here, and two others there
    crossed = csr_matrix(together[2000:][:, [0, 2, 1, 3]])
    assert gene_gene_agreement(same, crossed, genes) == pytest.approx(-0.5, abs=0.05)
    independent = csr_matrix(np.stack([rng.permutation(column) for column in together[2000:].T], axis=1))
    assert abs(gene_gene_agreement(same, independent, genes)) < 0.9


def test_log1p_cp10k_by_hand_and_of_an_empty_cell():
    counts = csr_matrix(np.array([[1, 0, 3], [0, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(log1p_cp10k(counts).toarray(), [[np.log1p(2500), 0, np.log1p(7500)], [0, 0, 0]])


def test_the_feature_space_is_the_principal_components_of_the_fitted_cells():
    rng = np.random.default_rng(0)
    dense = rng.poisson(rng.gamma(2.0, size=(50, 20))).astype(float)
    space = FeatureSpace.fit(csr_matrix(dense), n_components=4)
    features = space.transform(csr_matrix(dense))
    left, scale, _ = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(features), np.abs(left[:, :4] * scale[:4]), atol=1e-6)
    np.testing.assert_allclose(space.components @ space.components.T, np.eye(4), atol=1e-8)


def test_the_feature_space_shrinks_with_the_data():
    tiny = csr_matrix(np.random.default_rng(0).poisson(2.0, size=(9, 40)).astype(float))
    assert len(FeatureSpace.fit(tiny).components) == 8

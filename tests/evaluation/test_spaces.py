import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.sparse import csr_matrix

from scldm.errors import UserError
from scldm.evaluation import spaces
from scldm.evaluation.cells import Cells, log1p_cp10k
from scldm.evaluation.spaces import FeatureSpace, LatentSpace, VariableGeneSpace


def as_cells(adata: ad.AnnData) -> Cells:
    return Cells(adata.X.tocsr(), adata.var_names, pd.DataFrame(index=range(adata.n_obs)))


@pytest.fixture(scope="module")
def cells(real) -> Cells:
    return as_cells(real)


def test_log1p_cp10k_matches_scanpy_and_leaves_empty_cells_alone(real):
    expected = real.copy()
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    np.testing.assert_allclose(log1p_cp10k(real.X).toarray(), expected.X.toarray(), rtol=1e-5)
    empty = csr_matrix(np.array([[0.0, 0.0], [1.0, 3.0]], dtype=np.float32))
    np.testing.assert_allclose(log1p_cp10k(empty).toarray(), [[0, 0], np.log1p([2500, 7500])])


def test_components_are_those_of_a_dense_decomposition(cells):
    space = FeatureSpace.fit(cells.log1p_cp10k, n_components=5)
    values = cells.log1p_cp10k.toarray()
    _, spread, directions = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(space.components @ directions[:5].T), np.eye(5), atol=1e-6)
    features = space.transform(cells)
    np.testing.assert_allclose(features.mean(axis=0), 0.0, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(features, axis=0), spread[:5], rtol=1e-6)
    assert space.n_features == 5
    assert "5 principal components" in space.description


def test_there_are_fewer_components_than_cells_or_genes(cells):
    assert FeatureSpace.fit(cells.take(np.arange(8)).log1p_cp10k).n_features == 7
    assert FeatureSpace.fit(cells.with_genes(cells.genes[:6]).log1p_cp10k).n_features == 5
    assert FeatureSpace.fit(cells.log1p_cp10k).n_features == 30


def test_cells_that_are_alike_are_refused():
    alike = np.ones((40, 12), dtype=np.float32)
    for values in (alike, csr_matrix(alike)):
        with pytest.raises(UserError, match="The 40 real cells that the spaces are fitted on are alike"):
            FeatureSpace.fit(values)


def test_variable_genes_are_standardised_and_projected(cells, monkeypatch):
    space = VariableGeneSpace.fit(cells)
    values = cells.log1p_cp10k.toarray()
    standardised = np.clip((values - values.mean(axis=0)) / values.std(axis=0), -10, 10)
    _, spread, _ = np.linalg.svd(standardised - standardised.mean(axis=0), full_matrices=False)
    features = space.transform(cells)
    np.testing.assert_allclose(np.linalg.norm(features, axis=0), spread[:30], rtol=1e-6)
    monkeypatch.setattr(spaces, "_BLOCK_CELLS", 17)
    np.testing.assert_allclose(space.transform(cells), features, atol=1e-10)


def test_variable_genes_are_those_of_scanpy(make_cells):
    cells = as_cells(make_cells(150, seed=8, n_genes=600))
    space = VariableGeneSpace.fit(cells, n_genes=100)
    adata = ad.AnnData(cells.log1p_cp10k)
    adata.uns["log1p"] = {}
    expected = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=100, inplace=False)["highly_variable"]
    np.testing.assert_array_equal(space.genes, np.flatnonzero(expected.to_numpy()))
    assert "100 most variable genes" in space.description


def test_a_gene_that_never_varies_is_not_chosen_and_outliers_are_clipped(cells):
    counts = cells.counts.tolil()
    counts[:, 3] = 0
    quiet = Cells(counts.tocsr(), cells.genes, cells.labels)
    space = VariableGeneSpace.fit(quiet)
    assert 3 not in space.genes
    loud = quiet.take(np.array([0]))
    loud = Cells(csr_matrix(np.eye(1, 60, 5, dtype=np.float32) * 1e6), loud.genes, loud.labels)
    furthest = np.linalg.norm(np.full(len(space.genes), 10.0) + np.abs(space.pca.mean))
    assert np.linalg.norm(space.transform(loud)) <= furthest


class Halves:
    """A model of two coordinates: counts of the first and second half of the genes, of which one never varies."""

    def get_latent_representation(self, adata: ad.AnnData) -> np.ndarray:
        assert list(adata.var_names[:2]) == ["gene0", "gene1"]
        counts = adata.X.toarray()
        return np.stack([counts[:, :30].sum(axis=1), counts[:, 30:].sum(axis=1), np.ones(len(counts))], axis=1)


def test_the_latent_space_is_that_of_the_model_with_unit_spread(cells):
    space = LatentSpace.fit(Halves(), cells)
    features = space.transform(cells)
    np.testing.assert_allclose(features.std(axis=0), [1.0, 1.0, 0.0], atol=1e-12)
    counts = cells.counts.toarray()[:, :30].sum(axis=1)
    np.testing.assert_allclose(features[:, 0], counts / counts.std(), rtol=1e-6)
    assert features.shape[1] == 3


def test_a_model_that_gives_no_row_per_cell_is_refused(cells):
    class Wrong:
        def get_latent_representation(self, adata: ad.AnnData) -> np.ndarray:
            return np.zeros((3, 2))

    with pytest.raises(ValueError, match=r"120 cells has the shape \(3, 2\)"):
        LatentSpace.fit(Wrong(), cells)

"""Metrics of single genes, against what their descriptions say."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.spaces import FeatureSpace


def side(counts: np.ndarray) -> Side:
    genes = pd.Index([f"gene{i}" for i in range(counts.shape[1])])
    cells = Cells(csr_matrix(counts.astype(np.float32)), genes, pd.DataFrame(index=range(len(counts))))
    return Side(cells, {"pca": np.zeros((len(counts), 1))})


def compare(fitting: np.ndarray, pool: np.ndarray, system: np.ndarray, reference: np.ndarray) -> Comparison:
    fitted = Fitted({"pca": FeatureSpace(np.zeros(1), np.ones((1, 1)))}, {}, side(fitting), None)
    return Comparison(fitted, side(pool), system, reference, side(pool))


@pytest.fixture(scope="module")
def counts() -> tuple[np.ndarray, np.ndarray]:
    """Cells to fit on and a pool, of genes from one count in 300 cells to twenty per cell, in no order."""
    rng = np.random.default_rng(0)
    means = rng.permutation(10.0 ** np.linspace(-2.5, 1.3, 110))
    depth = np.exp(rng.normal(0.0, 0.4, size=(500, 1)))
    dispersion = rng.uniform(0.1, 2.0, size=110)
    drawn = rng.poisson(depth * means * rng.gamma(1 / dispersion, dispersion, size=(500, 110)))
    return drawn[:200], drawn[200:]


def log_dispersions(counts: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Log10 of the dispersions by the method of moments, given the depths."""
    depth, counts = counts.sum(axis=1), counts[:, genes].astype(np.float64)
    mean_share = counts.sum(axis=0) / depth.sum()
    found = (counts * (counts - 1)).sum(axis=0) / (mean_share**2 * (depth**2.0).sum()) - 1
    return np.log10(np.maximum(found, 0.01))


def curve_of_zeros(counts: np.ndarray) -> list[float | None]:
    """Median shares of zeros of genes in every bin of their mean counts; None in a bin with fewer than five."""
    means, zeros = counts.mean(axis=0), (counts == 0).mean(axis=0)
    edges = 10.0 ** np.arange(-1.5, 1.51, 0.25)
    bins = [zeros[(means >= low) & (means < high)] for low, high in pairwise(edges)]
    return [float(np.median(one)) if len(one) >= 5 else None for one in bins]


def test_dispersions_are_of_the_genes_with_enough_counts_in_the_fitting_cells(counts, draw):
    fitting, pool = counts
    system, reference = draw(300, 140, 140, n_rows=3)
    comparison = compare(fitting, pool, system, reference)
    order = np.argsort(fitting.mean(axis=0), kind="stable")
    abundant = order[fitting.mean(axis=0)[order] >= 0.25]
    correlations, trends = [], []
    for sides in zip(system, reference, strict=True):
        own, real = (log_dispersions(pool[one], abundant) for one in sides)
        correlations.append(np.corrcoef(own, real)[0, 1])
        bins = np.arange(len(abundant)) * 10 // len(abundant)
        trends.append(np.mean([abs(np.median(own[bins == b]) - np.median(real[bins == b])) for b in range(10)]))
    np.testing.assert_allclose(METRICS["dispersion_correlation"].compute(comparison), correlations, rtol=1e-5)
    np.testing.assert_allclose(METRICS["dispersion_trend"].compute(comparison), trends, rtol=1e-5)


def test_the_curve_of_zeros_is_of_the_genes_that_the_fitting_cells_express(counts, draw):
    fitting, pool = counts
    # silent where the space was fitted: not of the curve, however abundant in the pool
    fitting = np.column_stack([fitting, np.zeros((200, 6))])
    pool = np.column_stack([pool, 10 * (np.arange(300)[:, None] % 10 == 0) * np.ones(6)])
    system, reference = draw(300, 140, 140, n_rows=3)
    expected, expressed = [], np.flatnonzero(fitting.mean(axis=0) >= 0.02)
    for sides in zip(system, reference, strict=True):
        curves = zip(*(curve_of_zeros(pool[one][:, expressed]) for one in sides), strict=True)
        expected.append(np.mean([abs(own - real) for own, real in curves if own is not None and real is not None]))
    found = METRICS["zero_fraction_curve"].compute(compare(fitting, pool, system, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_too_few_genes_for_dispersions_or_a_curve(counts, one_row):
    fitting, pool = counts
    abundant = np.flatnonzero(fitting.mean(axis=0) >= 0.25)
    for n_genes, computed in ((20, True), (19, False)):
        genes = np.concatenate([abundant[:n_genes], np.flatnonzero(fitting.mean(axis=0) < 0.25)])
        comparison = compare(fitting[:, genes], pool[:, genes], *one_row(150, 150))
        for name in ("dispersion_trend", "dispersion_correlation"):
            assert (METRICS[name].compute(comparison) is not None) == computed
    few = compare(fitting[:, :4], pool[:, :4], *one_row(150, 150))
    assert METRICS["zero_fraction_curve"].compute(few) is None


def test_variances_are_compared_of_genes_that_vary_on_both_sides(counts, draw):
    fitting, pool = counts
    pool = pool.copy()
    pool[:, 5] = 0
    pool[:150, 7] = 0  # in the first row it varies in the reference only
    system, reference = draw(300, 100, 100, n_rows=2)
    system[0], reference[0] = np.arange(300) < 150, np.arange(300) >= 150
    logs, expected = side(pool).cells.log1p_cp10k.toarray().astype(np.float64), []
    for sides in zip(system, reference, strict=True):
        own, real = (logs[one].var(axis=0) for one in sides)
        varying = (own > 0) & (real > 0)
        expected.append(np.corrcoef(np.log10(own[varying]), np.log10(real[varying]))[0, 1])
    found = METRICS["gene_variance_correlation"].compute(compare(fitting, pool, system, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    silent = compare(fitting, np.zeros_like(pool), system, reference)
    np.testing.assert_array_equal(METRICS["gene_variance_correlation"].compute(silent), 0.0)

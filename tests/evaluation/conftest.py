"""Small synthetic cells: two types, correlated genes inside a type, and depths that vary."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation import EvaluationReport, evaluate


def make_cells(n_cells: int, seed: int, n_genes: int = 60, programme: float = 0.8) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    base = np.linspace(0.0, 3.0, n_genes)
    kind = rng.integers(0, 2, n_cells)
    log_rate = np.tile(base, (n_cells, 1))
    log_rate[kind == 1, : n_genes // 4] += 2.0
    # half of the genes rise and fall together: what independent genes cannot do
    log_rate[:, ::2] += programme * rng.normal(size=(n_cells, 1))
    rate = np.exp(log_rate)
    rate /= rate.sum(axis=1, keepdims=True)
    depth = np.exp(rng.normal(6.0, 0.3, size=(n_cells, 1)))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(np.array(["B", "T"])[kind]),
            "batch": pd.Categorical(rng.choice(["one", "two"], n_cells)),
            "age": rng.normal(size=n_cells),
        },
        index=[f"cell{seed}_{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
    return ad.AnnData(csr_matrix(rng.poisson(depth * rate).astype(np.float32)), obs=obs, var=var)


@pytest.fixture(name="make_cells", scope="session")
def _make_cells() -> Callable[..., ad.AnnData]:
    return make_cells


@pytest.fixture(scope="session")
def real() -> ad.AnnData:
    return make_cells(120, seed=1)


@pytest.fixture(scope="session")
def generated() -> ad.AnnData:
    return make_cells(150, seed=2)


@pytest.fixture(scope="session")
def train() -> ad.AnnData:
    return make_cells(200, seed=3)


@pytest.fixture(scope="session")
def report(real: ad.AnnData, generated: ad.AnnData, train: ad.AnnData) -> EvaluationReport:
    """One report for all tests that look at a report; every run of `evaluate` takes seconds."""
    return evaluate(real, generated, train=train, conditions=["cell_type", "batch"], n_halvings=3, n_permutations=39)


@pytest.fixture(scope="session")
def plain(real: ad.AnnData, generated: ad.AnnData, train: ad.AnnData) -> EvaluationReport:
    """A report without conditions, one split and few resamples, to compare others with."""
    return evaluate(real, generated, train=train, n_halvings=1, n_permutations=39)

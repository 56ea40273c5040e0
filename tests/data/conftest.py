"""Small count data, made up, with attributes of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

MakeAnnData = Callable[..., ad.AnnData]


def make_counts(n_cells: int, n_genes: int, seed: int = 0, density: float = 0.4) -> sp.csr_matrix:
    """Draw counts in which every cell and every gene has at least three entries."""
    random = np.random.default_rng(seed)
    counts = random.poisson(3.0, size=(n_cells, n_genes)) * (random.random((n_cells, n_genes)) < density)
    for shift in range(3):
        counts[np.arange(n_cells), (np.arange(n_cells) + shift) % n_genes] += 1
    return sp.csr_matrix(counts.astype(np.float32))


def build_adata(n_cells: int = 60, n_genes: int = 12, seed: int = 0) -> ad.AnnData:
    random = np.random.default_rng(seed + 1)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(
                random.choice(["T cell", "B cell", "monocyte"], n_cells),
                categories=["T cell", "monocyte", "B cell", "never seen"],
            ),
            "batch": random.integers(1, 4, n_cells),
            "treated": random.random(n_cells) < 0.5,
            "age": random.normal(50.0, 10.0, n_cells),
            "species": ["human"] * n_cells,
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)])
    return ad.AnnData(make_counts(n_cells, n_genes, seed), obs=obs, var=var)


@pytest.fixture
def make_adata() -> MakeAnnData:
    return build_adata


@pytest.fixture
def adata() -> ad.AnnData:
    return build_adata()


@pytest.fixture
def h5ad(adata: ad.AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path, compression="gzip")
    return path

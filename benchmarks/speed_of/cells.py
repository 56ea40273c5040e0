"""The cells that all systems are given: one file for every length of the gene list."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scldm.config import DataConfig, RunConfig
from scldm.data import open_source, read_counts
from scldm.data.source import CellSource
from speed_of.job import CONDITION, Settings

#: Length of the gene list that benchmarks/fidelity.py trains with on the default data set.
OWN_GENES = 13_474


def write_cells(settings: Settings, genes: int) -> None:
    """Write the cells with a gene list of the given length."""
    adata = ad.read_h5ad(Path(os.environ["SCLDM_DATA"]) / f"{settings.dataset}.h5ad")
    counts = sp.csr_matrix(read_counts(adata)).astype(np.float32)
    kept = np.flatnonzero(counts.getnnz(axis=0) >= DataConfig().min_cells_per_gene)
    totals = np.asarray(counts.sum(axis=0)).ravel()[kept]
    chosen = kept[np.argsort(-totals, kind="stable")[:genes]]
    n_padding = genes - len(chosen)
    cells = np.random.default_rng(0).integers(adata.n_obs, size=n_padding)
    padding = sp.csr_matrix((np.ones(n_padding, np.float32), (cells, np.arange(n_padding))), (adata.n_obs, n_padding))
    names = [*adata.var_names[chosen], *(f"padding_{i}" for i in range(n_padding))]
    table = sp.hstack([counts[:, chosen], padding], format="csr")
    # Few genes can leave a cell without any count, which no system takes.
    filled = np.flatnonzero(table.getnnz(axis=1))
    obs = pd.DataFrame({CONDITION: adata.obs[CONDITION].to_numpy()[filled]}, index=adata.obs_names[filled])
    result = ad.AnnData(table[filled], obs, pd.DataFrame(index=names))
    result.write_h5ad(settings.cells(genes), compression="gzip")


def open_cells(settings: Settings, genes: int, *, backed: bool = False) -> CellSource:
    path = settings.cells(genes)
    return open_source(path, categorical=(CONDITION,), min_cells_per_gene=1, backed=backed)


def our_config() -> RunConfig:
    return RunConfig(data=DataConfig(conditions=(CONDITION,), min_cells_per_gene=1))

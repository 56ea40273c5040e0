"""Real data that comes with the installation: 700 peripheral blood cells, for the demo and for tests."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

__all__ = ["load_demo"]


def load_demo() -> ad.AnnData:
    """Load 700 peripheral blood mononuclear cells x 765 genes (10x Genomics, Zheng et al. 2017), shipped with scanpy.

    scanpy keeps the log-normalised values only. The smallest positive value of a cell belongs to a count of one, so
    dividing by it after ``expm1`` gives back the integer UMI counts.

    Returns
    -------
    Data with counts (CSR float32) in ``X`` and the categorical ``obs`` columns ``cell_type`` (10) and ``phase`` (3, of
    the cell cycle). Nothing is downloaded.
    """
    import scanpy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shipped = scanpy.datasets.pbmc68k_reduced()
        logged = sp.csr_matrix(shipped.raw.X).astype(np.float64)
    logged.eliminate_zeros()
    normalised = np.expm1(logged.data)
    unit = np.minimum.reduceat(normalised, logged.indptr[:-1])
    ratios = normalised / np.repeat(unit, np.diff(logged.indptr))
    counts = np.rint(ratios)
    # scanpy's values are rounded to three decimals, which puts the largest ratios (near 200) off by a tenth.
    if np.abs(ratios - counts).max() > 0.2:
        raise RuntimeError("the data set that ships with this version of scanpy is not the one that is expected")
    matrix = sp.csr_matrix((counts.astype(np.float32), logged.indices, logged.indptr), shape=logged.shape)
    matrix.sort_indices()
    obs = pd.DataFrame(
        {
            "cell_type": shipped.obs["bulk_labels"].astype("category"),
            "phase": shipped.obs["phase"].astype("category"),
        },
        index=pd.Index(shipped.obs_names.astype(str), name=None),
    )
    var = pd.DataFrame(index=pd.Index(shipped.raw.var_names.astype(str), name=None))
    return ad.AnnData(matrix, obs=obs, var=var)

"""The unit in which expression is compared: log1p CP10K."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

__all__ = ["log1p_cp10k"]


def log1p_cp10k(counts: csr_matrix) -> csr_matrix:
    """Scale every cell to 10,000 counts and take log(1 + x).

    Parameters
    ----------
    counts
        UMI counts, cells x genes. A cell without any count stays zero.
    """
    library_size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = 1e4 / np.maximum(library_size, 1.0)
    data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr)))
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)

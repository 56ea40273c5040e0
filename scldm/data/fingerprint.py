"""Fingerprints of cells: whether two files hold the same counts and labels, in whatever form they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import UInt64

from scldm.data.labels import as_labels

__all__ = ["column_fingerprint", "count_hashes", "counts_fingerprint", "gene_weights"]

ENTRIES_AT_A_TIME = 2**22


def gene_weights(genes: Iterable[object]) -> UInt64[np.ndarray, " genes"]:
    """Return an odd number of 64 bits for every gene, which follows from its name alone."""
    digests = b"".join(hashlib.blake2b(str(gene).encode(errors="replace"), digest_size=8).digest() for gene in genes)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64) | np.uint64(1)


def count_hashes(counts: sp.csr_matrix, weights: UInt64[np.ndarray, " genes"]) -> UInt64[np.ndarray, " cells"]:
    """Compute for every cell the sum of its counts times the weights of the genes, modulo 2^64.

    It does not depend on the order of the genes, on stored zeros or on the type of the counts; two cells that differ
    have the same with a probability of about 2^-64.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers from 0 on.
    weights
        Of :func:`gene_weights`.
    """
    totals = np.zeros(counts.shape[0], dtype=np.uint64)
    indptr = counts.indptr.astype(np.int64)
    start = 0
    while start < counts.shape[0]:
        stop = int(np.searchsorted(indptr, indptr[start] + ENTRIES_AT_A_TIME, side="right")) - 1
        stop = min(counts.shape[0], max(start + 1, stop))
        part = slice(indptr[start], indptr[stop])
        products = counts.data[part].astype(np.uint64) * weights[counts.indices[part]]
        sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(products, dtype=np.uint64)])
        bounds = indptr[start : stop + 1] - indptr[start]
        totals[start:stop] = sums[bounds[1:]] - sums[bounds[:-1]]
        start = stop
    return totals


def counts_fingerprint(hashes: UInt64[np.ndarray, " cells"]) -> str:
    """Return a fingerprint of the counts of cells in their order, 16 hexadecimal digits."""
    return _digest(hashes.astype("<u8").tobytes())


def column_fingerprint(column: pd.Series) -> str:
    """Return a fingerprint of a column in the order of the cells, 16 hexadecimal digits."""
    if pd.api.types.is_float_dtype(column.dtype):
        return _digest(column.to_numpy(dtype="<f8").tobytes())
    return _digest(
        "\0".join("" if label is None else f"={label}" for label in as_labels(column)).encode(errors="replace")
    )


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()

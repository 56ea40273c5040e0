"""Reading UMI counts from wherever a file keeps them, and refusing what is not counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.abc import CSCDataset, CSRDataset

from scldm.data.stored import StoredMatrix, check_sparse, native
from scldm.errors import UserError, nearest_names

__all__ = ["CountTable", "check_counts", "find_counts", "read_counts"]

# Above this, float32 no longer holds every integer.
LARGEST_EXACT_COUNT = 2**24
# log1p of counts per million stays below this.
LARGEST_LOG_VALUE = 14
# What integers lose when they are scaled and scaled back in float32.
LARGEST_ROUNDING_ERROR = 1e-2
ENTRIES_AT_A_TIME = 2**24


@dataclass(frozen=True)
class CountTable:
    """A matrix that should hold counts, before anything of it was looked at.

    Attributes
    ----------
    matrix
        Cells x genes: dense or sparse, in memory or on disk.
    genes
        Names of its columns.
    where
        What a sentence calls it, such as ``layer 'counts'``.
    elsewhere
        Tells, on demand, in which other places integers were found.
    """

    matrix: Any
    genes: pd.Index
    where: str
    elsewhere: Callable[[], list[str]]


def read_counts(adata: ad.AnnData, layer: str | None = None) -> sp.csr_matrix:
    """Read the UMI counts of an AnnData.

    Parameters
    ----------
    adata
        Data in memory or backed by a file.
    layer
        Where the counts are: None for ``X``, the name of a layer, or ``"raw"`` for ``adata.raw`` (unless a layer is
        called that).

    Returns
    -------
    float32 counts, cells x genes, without stored zeros, columns sorted. May share memory with ``adata``.

    Raises
    ------
    UserError
        If the values are not counts (NaN, infinite, negative, not integer, above 2^24), if cells are empty, or if the
        place does not exist.
    """
    table = find_counts(adata, layer)
    matrix = to_count_matrix(table)
    check_no_empty_cells(np.diff(matrix.indptr))
    return matrix


def find_counts(adata: ad.AnnData, layer: str | None = None) -> CountTable:
    """Find the counts of an AnnData without reading them; arguments as in :func:`read_counts`."""
    places = {f"layer '{name}'": adata.layers[name] for name in adata.layers}
    if adata.X is not None:
        places["X"] = adata.X
    if adata.raw is not None:
        places["raw"] = adata.raw.X
    where = choose_place(layer, list(adata.layers), has_x=adata.X is not None, has_raw=adata.raw is not None)
    genes = adata.raw.var_names if where == "raw" else adata.var_names

    def elsewhere() -> list[str]:
        return [place for place, matrix in places.items() if place != where and looks_like_counts(matrix)]

    return CountTable(places[where], genes, where, elsewhere)


def choose_place(layer: str | None, layers: list[str], *, has_x: bool, has_raw: bool) -> str:
    """Tell which matrix is meant: ``"X"``, ``"raw"`` or ``"layer '...'"``; raises ``UserError`` if there is none."""
    if layer is None:
        if not has_x:
            raise UserError(f"the data has no X; name the layer that holds the counts ({_listing(layers)})")
        return "X"
    if layer in layers:
        return f"layer '{layer}'"
    if layer == "raw" and has_raw:
        return "raw"
    if layer == "X" and has_x:
        return "X"
    help_ = nearest_names(layer, layers) if layers else "the data has no layers, its counts may be in X"
    raise UserError(f"there is no layer '{layer}'; {help_}")


def to_count_matrix(table: CountTable) -> sp.csr_matrix:
    """Read a table into memory as float32 CSR without stored zeros; raises ``UserError`` if it does not hold counts."""
    check_not_empty(table.matrix.shape)
    blocks = []
    for block in _row_blocks(table.matrix, table.where):
        check_counts(block.data, table.where, table.elsewhere)
        blocks.append(canonical(sp.csr_matrix(block, dtype=np.float32)))
    return blocks[0] if len(blocks) == 1 else sp.csr_matrix(sp.vstack(blocks, format="csr"))


def check_counts(values: np.ndarray, where: str, elsewhere: Callable[[], list[str]] | None = None) -> None:
    """Raise ``UserError`` unless all values are integers from 0 to 2^24.

    Parameters
    ----------
    values
        Stored entries of a matrix.
    where
        What the sentence calls the matrix.
    elsewhere
        Tells where else there are integers; called only for values that are not counts.
    """
    if values.dtype.kind not in "buif":
        raise UserError(f"{where} holds values of type {values.dtype}, not numbers")
    for start in range(0, len(values), ENTRIES_AT_A_TIME):
        chunk = values[start : start + ENTRIES_AT_A_TIME]
        low, high = chunk.min(), chunk.max()
        if np.isnan(low) or np.isnan(high):
            n_nan = int(np.isnan(values).sum())
            raise UserError(f"{where} holds {n_nan} NaN values; scldm needs integer UMI counts")
        if np.isinf(low) or np.isinf(high):
            raise UserError(
                f"{where} holds {int(np.isinf(values).sum())} infinite values; scldm needs integer UMI counts"
            )
        if low < 0:
            raise UserError(f"{where} holds negative values ({low:g}), so it is not counts{_advice(elsewhere)}")
        if chunk.dtype.kind == "f" and (np.rint(chunk) != chunk).any():
            example = chunk[np.rint(chunk) != chunk][0]
            raise UserError(
                f"{where} holds values that are not integers ({example:.9g}){_looks(values)}{_advice(elsewhere)}"
            )
        if high > LARGEST_EXACT_COUNT:
            raise UserError(
                f"{where} holds a count of {high:.0f}; counts above {LARGEST_EXACT_COUNT} are not supported"
            )


def _looks(values: np.ndarray) -> str:
    """Say what values that are not all integers may be, if that can be told."""
    positive = values[values > 0]
    distance = np.abs(positive - np.rint(positive))
    if distance.max() < LARGEST_ROUNDING_ERROR:
        return ", off by rounding errors only; round them, for example with numpy.rint, if they were counts once"
    if positive.max() < LARGEST_LOG_VALUE and (distance > 0).mean() > 0.5:
        return ", it looks log-normalised"
    return ""


def check_not_empty(shape: tuple[int, ...]) -> None:
    """Raise ``UserError`` if a matrix has no cells or no genes."""
    if not all(shape):
        raise UserError(f"the data has {shape[0]} cells and {shape[1]} genes; at least one of each is needed")


def check_no_empty_cells(totals: np.ndarray, reason: str = "") -> None:
    """Raise ``UserError`` if a cell has no counts; ``reason`` tells which genes were looked at."""
    n_empty = int((totals == 0).sum())
    if n_empty:
        raise UserError(
            f"{n_empty} of {len(totals)} cells have no counts{reason}; "
            "remove them, for example with scanpy.pp.filter_cells(adata, min_counts=1)"
        )


def canonical(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Return the matrix with sorted, unrepeated columns and no stored zeros; the argument is never changed."""
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return matrix


def looks_like_counts(matrix: Any) -> bool:
    """Tell from a few rows whether a matrix holds counts."""
    try:
        if isinstance(matrix, StoredMatrix):
            check_counts(matrix.some_values(), "")
        else:
            check_counts(next(_row_blocks(matrix[: min(200, matrix.shape[0])], "")).data, "")
    except (UserError, TypeError, ValueError):
        return False
    return True


def _row_blocks(matrix: Any, where: str) -> Iterator[sp.csr_matrix]:
    """Yield consecutive rows as CSR with the values as they are; what is sparse comes as one block."""
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    if isinstance(matrix, CSRDataset | CSCDataset):
        matrix = StoredMatrix(matrix.group)
    if isinstance(matrix, StoredMatrix):
        matrix = matrix.to_memory()
    if sp.issparse(matrix):
        check_sparse(matrix, where)
        yield sp.csr_matrix(matrix)
        return
    if not isinstance(matrix, h5py.Dataset):
        matrix = np.asarray(matrix)
    if matrix.dtype.kind not in "buif":
        raise UserError(f"{where} holds values of type {matrix.dtype}, not numbers")
    n_rows, n_columns = matrix.shape
    step = max(1, ENTRIES_AT_A_TIME // n_columns)
    for start in range(0, n_rows, step):
        yield sp.csr_matrix(native(matrix[start : start + step]))


def _advice(elsewhere: Callable[[], list[str]] | None) -> str:
    places = elsewhere() if elsewhere is not None else []
    if places:
        return f"; scldm needs integer UMI counts, which are in {' and '.join(places)}: name it as the layer"
    return "; scldm needs integer UMI counts"


def _listing(layers: list[str]) -> str:
    return "layers: " + ", ".join(f"'{name}'" for name in layers) if layers else "it has no layers"

"""A matrix in an HDF5 file, looked through before anything trusts it: a damaged pointer would end the process."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import scipy.sparse as sp
from jaxtyping import Int64

from scldm.errors import UserError

__all__ = ["StoredMatrix", "check_sizes", "check_sparse", "matrix_of", "native"]

ENTRIES_AT_A_TIME = 2**24
# How an old writer (h5sparse) and anndata say in which direction a sparse matrix is compressed.
_FORMATS = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}
# No compression of HDF5 makes more of a byte; what is larger was never written.
_LARGEST_COMPRESSION = 2000
_ALWAYS_ALLOWED_BYTES = 2**26


class StoredMatrix:
    """A sparse matrix in an HDF5 group, compressed by rows (CSR) or by columns (CSC).

    Attributes
    ----------
    shape
        Cells and genes.
    format
        ``"csr"`` or ``"csc"``.
    indptr
        Where each row (CSR) or column (CSC) begins among the entries; rising, from 0 to the number of entries.
    data, indices
        The entries and their columns (CSR) or rows (CSC), in the file.

    Raises
    ------
    UserError
        If the parts do not fit together.
    """

    def __init__(self, group: h5py.Group) -> None:
        self.where = group.name.strip("/")
        said = group.attrs.get("encoding-type", group.attrs.get("h5sparse_format"))
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        if said not in _FORMATS:
            stored = "does not say how it is stored" if said is None else f"is stored as '{said}'"
            raise UserError(f"'{self.where}' {stored}; allowed: a dense matrix, csr_matrix or csc_matrix")
        self.format = _FORMATS[str(said)]
        self.data, self.indices, pointers = (self._part(group, name) for name in ("data", "indices", "indptr"))
        _check_are_numbers(self.data, self.where)
        shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
        sizes = np.asarray(shape).ravel() if shape is not None else np.zeros(0)
        if len(sizes) != 2 or sizes.dtype.kind not in "iu" or min(map(int, sizes)) < 0:
            raise self._damaged("has no shape")
        self.shape = (int(sizes[0]), int(sizes[1]))
        n_lines, self._n_places = self.shape if self.format == "csr" else self.shape[::-1]
        if pointers.shape != (n_lines + 1,):
            raise self._damaged(f"has {pointers.shape[0]} row pointers for {n_lines} rows")
        if self.data.shape != self.indices.shape:
            raise self._damaged(f"has {self.data.shape[0]} values and {self.indices.shape[0]} indices")
        if self.indices.dtype.kind not in "iu" or pointers.dtype.kind not in "iu":
            raise self._damaged("has indices that are not integers")
        self.indptr: Int64[np.ndarray, " lines"] = pointers[:].astype(np.int64)
        if self.indptr[0] != 0 or (np.diff(self.indptr) < 0).any() or self.indptr[-1] != self.data.shape[0]:
            raise self._damaged(f"has row pointers that do not rise from 0 to its {self.data.shape[0]} entries")

    def checked_indices(self, indices: np.ndarray) -> np.ndarray:
        """Return indices as scipy wants them; raises ``UserError`` if one lies outside the matrix."""
        if len(indices) and (indices.min() < 0 or indices.max() >= self._n_places):
            wrong = indices[(indices < 0) | (indices >= self._n_places)][0]
            raise self._damaged(f"has the index {wrong}, of {self._n_places} places")
        return indices.astype(np.int32 if self._n_places < 2**31 else np.int64, copy=False)

    def to_memory(self) -> Any:
        """Read everything, as scipy's matrix of this format; raises ``UserError`` if it is damaged."""
        n_entries = int(self.indptr[-1])
        indices = np.empty(n_entries, dtype=np.int32 if self._n_places < 2**31 else np.int64)
        for start in range(0, n_entries, ENTRIES_AT_A_TIME):
            part = slice(start, min(start + ENTRIES_AT_A_TIME, n_entries))
            indices[part] = self.checked_indices(self.indices[part])
        kind = sp.csr_matrix if self.format == "csr" else sp.csc_matrix
        return kind((native(self.data[:]), indices, self.indptr), shape=self.shape)

    def some_values(self) -> np.ndarray:
        """Read the first values that are stored, for a look at what they are."""
        return native(self.data[:100_000])

    def _part(self, group: h5py.Group, name: str) -> h5py.Dataset:
        part = group.get(name)
        if not isinstance(part, h5py.Dataset) or part.ndim != 1:
            raise self._damaged(f"has no '{name}'")
        return part

    def _damaged(self, how: str) -> UserError:
        return UserError(f"the sparse matrix '{self.where}' is damaged: it {how}")


def matrix_of(item: Any, where: str) -> StoredMatrix | h5py.Dataset:
    """Open a matrix in a file; raises ``UserError`` if it is not one."""
    if isinstance(item, h5py.Group):
        return StoredMatrix(item)
    if not isinstance(item, h5py.Dataset) or item.ndim != 2:
        raise UserError(f"'{where}' is not a matrix of cells and genes")
    _check_are_numbers(item, where)
    return item


def _check_are_numbers(values: h5py.Dataset, where: str) -> None:
    if values.dtype.kind not in "buif":
        raise UserError(f"'{where}' holds values of type {values.dtype}, not numbers")


def native(values: np.ndarray) -> np.ndarray:
    """Return numbers in a type that scipy can work with: in the byte order of this machine, float32 for float16."""
    dtype = values.dtype
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return values.astype(np.float32 if dtype.itemsize == 2 else np.float64)
    return values.astype(dtype.newbyteorder("="), copy=False)


def check_sparse(matrix: Any, where: str) -> None:
    """Raise ``UserError`` if the parts of a sparse matrix in memory do not fit together: scipy would not look."""
    if matrix.format not in ("csr", "csc"):
        return
    n_lines, n_places = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    pointers, indices = matrix.indptr, matrix.indices
    whole = (
        len(pointers) == n_lines + 1
        and pointers[0] == 0
        and not (np.diff(pointers) < 0).any()
        and pointers[-1] <= min(len(indices), len(matrix.data))
        and (not len(indices) or (indices.min() >= 0 and indices.max() < n_places))
    )
    if not whole:
        raise UserError(f"the sparse matrix in {where} is damaged: its indices lie outside of it")


def check_sizes(file: h5py.File) -> None:
    """Raise ``UserError`` if something in a file says that it is far larger than what the file holds of it."""

    def look(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind == "O":
            return
        # What is never written has no storage; a compact or tiny one is cheap whatever it says.
        n_bytes = int(np.prod(item.shape, dtype=np.float64)) * item.dtype.itemsize
        if n_bytes > _ALWAYS_ALLOWED_BYTES + _LARGEST_COMPRESSION * item.id.get_storage_size():
            raise UserError(f"'{name}' says that it has the shape {item.shape}, which the file does not hold")

    file.visititems(look)

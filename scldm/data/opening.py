"""From a path or an AnnData to a source of cells, with every check on the way."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int64

from scldm.data.alignment import GeneCoverage, align_columns, column_map
from scldm.data.attributes import numbers
from scldm.data.backed import BackedSource, StoredRows, aligned_totals, scan
from scldm.data.counts import CountTable, check_no_empty_cells, check_not_empty, find_counts, to_count_matrix
from scldm.data.demo import load_demo
from scldm.data.h5ad import counts_key, find_counts_in_file, open_h5ad, read_obs
from scldm.data.schema import (
    DatasetSchema,
    Names,
    as_names,
    check_column,
    check_labelled,
    check_unique_genes,
    fit_attributes,
)
from scldm.data.source import AnnDataSource, CellSource, CellTable
from scldm.errors import UserError, nearest_names

__all__ = ["open_source"]


@dataclass(frozen=True)
class Reading:
    """How the caller of :func:`open_source` wants the data read; attributes as there."""

    categorical: tuple[str, ...]
    continuous: tuple[str, ...]
    schema: DatasetSchema | None
    min_cells_per_gene: int
    missing_labels: str
    min_shared_genes: float
    keep_columns: tuple[str, ...]


def open_source(
    data: ad.AnnData | str | os.PathLike[str],
    *,
    layer: str | None = None,
    categorical: Names = (),
    continuous: Names = (),
    schema: DatasetSchema | None = None,
    min_cells_per_gene: int = 3,
    missing_labels: str = "error",
    backed: bool = False,
    min_shared_genes: float = 0.5,
    keep_columns: Names = (),
) -> CellSource:
    """Open cells for training or encoding.

    Parameters
    ----------
    data
        An AnnData, the path of an ``.h5ad`` file, or ``"demo"`` for the data that comes with the installation.
    layer
        Where the counts are: None for ``X``, the name of a layer, or ``"raw"``.
    categorical, continuous
        Names of the ``obs`` columns to condition on. With ``schema``, its own attributes are used and these may be left
        out.
    schema
        A schema to align to: genes by name (others are dropped, missing ones count as zero) and attributes by label.
        None makes a schema from the data.
    min_cells_per_gene
        Without ``schema``: genes expressed in fewer cells are left out.
    missing_labels
        ``"error"`` refuses cells without a label, or, with ``schema``, with a label the schema does not know;
        ``"unlabelled"`` keeps them without that attribute.
    backed
        Read counts from the file when they are needed instead of keeping them in memory.
    min_shared_genes
        With ``schema``: fraction of its genes that the data has to have.
    keep_columns
        Further ``obs`` columns to keep in ``source.obs`` as they are, for example to split by.

    Raises
    ------
    UserError
        For anything about the data that is not as it has to be.
    """
    if missing_labels not in ("error", "unlabelled"):
        raise UserError(f"missing_labels is '{missing_labels}'; allowed: 'error', 'unlabelled'")
    reading = Reading(
        as_names(categorical),
        as_names(continuous),
        schema,
        min_cells_per_gene,
        missing_labels,
        min_shared_genes,
        as_names(keep_columns),
    )
    if isinstance(data, str) and data == "demo":
        data, backed = load_demo(), False
    if not isinstance(data, ad.AnnData):
        with open_h5ad(data) as file:
            obs = read_obs(file)
            try:
                return _open_file(file, find_counts_in_file(file, layer), obs, layer, backed, reading)
            except UserError as error:
                raise UserError(f"in '{os.fspath(data)}': {error}") from error
    if not backed:
        # Copied, because users normalise their AnnData in place while they hold a model of it.
        return _in_memory(find_counts(data, layer), data.obs, reading, copy=True)
    if not data.isbacked or data.is_view:
        raise UserError("backed reading needs a whole .h5ad file; pass its path, or write the data to one first")
    with open_h5ad(data.filename) as file:
        # The names may have been changed since the file was opened.
        genes = find_counts(data, layer).genes
        table = dataclasses.replace(find_counts_in_file(file, layer), genes=genes)
        return _open_file(file, table, data.obs, layer, backed, reading)


def _open_file(
    file: h5py.File, table: CountTable, obs: pd.DataFrame, layer: str | None, backed: bool, reading: Reading
) -> CellSource:
    if backed:
        return _backed(StoredRows(file.filename, counts_key(file, layer)), table, obs, reading)
    return _in_memory(table, obs, reading)


def _in_memory(table: CountTable, obs: pd.DataFrame, reading: Reading, copy: bool = False) -> AnnDataSource:
    _check_before_reading(table, obs, reading)
    matrix = to_count_matrix(table)
    check_no_empty_cells(np.diff(matrix.indptr))
    n_expressing = np.bincount(matrix.indices, minlength=matrix.shape[1])
    genes, target, missing = _choose_genes(table, n_expressing, reading)
    total = float(matrix.data.sum(dtype=np.float64))
    aligned = align_columns(matrix, target, len(genes))
    matrix = matrix.copy() if copy and aligned is matrix else aligned
    library_sizes = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return AnnDataSource(matrix, *_describe(obs, genes, missing, library_sizes, total, reading))


def _backed(stored: StoredRows, table: CountTable, obs: pd.DataFrame, reading: Reading) -> BackedSource:
    _check_before_reading(table, obs, reading)
    library_sizes, n_expressing = scan(stored, table)
    check_no_empty_cells(library_sizes)
    genes, target, missing = _choose_genes(table, n_expressing, reading)
    total = float(library_sizes.sum())
    if (target < 0).any():
        library_sizes = aligned_totals(stored, target)
    # Training may fork workers, which must not inherit an open file.
    stored.close()
    return BackedSource(stored, target, *_describe(obs, genes, missing, library_sizes, total, reading))


def _check_before_reading(table: CountTable, obs: pd.DataFrame, reading: Reading) -> None:
    """Refuse what can be refused without reading the counts, which may take long."""
    check_not_empty(table.matrix.shape)
    check_unique_genes(table.genes)
    for name in reading.keep_columns:
        check_column(obs, name)
    if reading.schema is None:
        fit_attributes(obs, reading.categorical, reading.continuous, reading.missing_labels)
    else:
        column_map(table.genes, reading.schema.genes, reading.min_shared_genes)
        _encode_labels(obs, reading.schema, reading)


def _choose_genes(
    table: CountTable, n_expressing: Int64[np.ndarray, " file_genes"], reading: Reading
) -> tuple[tuple[str, ...], Int64[np.ndarray, " file_genes"], tuple[str, ...]]:
    """Return the genes of the schema, where they are in the file, and which of them it lacks."""
    if reading.schema is not None:
        genes = reading.schema.genes
        return genes, *column_map(table.genes, genes, reading.min_shared_genes)
    genes = tuple(table.genes[n_expressing >= reading.min_cells_per_gene].astype(str))
    if not genes:
        raise UserError(
            f"no gene of {table.where} is expressed in {reading.min_cells_per_gene} or more cells; "
            "lower min_cells_per_gene"
        )
    return genes, *column_map(table.genes, genes, min_shared=0.0)


def _describe(
    obs: pd.DataFrame,
    genes: tuple[str, ...],
    missing: tuple[str, ...],
    library_sizes: Float[np.ndarray, " cells"],
    total: float,
    reading: Reading,
) -> tuple[DatasetSchema, CellTable, GeneCoverage]:
    """Put together what a source is made of besides its counts; ``total`` is the UMI counts of the whole file."""
    which = f" on genes expressed in {reading.min_cells_per_gene} or more cells" if reading.schema is None else None
    check_no_empty_cells(library_sizes, which or " on the genes of the model")
    schema = reading.schema or DatasetSchema.from_library_sizes(
        library_sizes, genes, obs, reading.categorical, reading.continuous, reading.missing_labels
    )
    kept = float(library_sizes.sum(dtype=np.float64) / total)
    coverage = GeneCoverage(len(genes), len(genes) - len(missing), missing, kept)
    categorical, continuous = _encode_labels(obs, schema, reading)
    labels = _label_table(obs, schema, categorical, continuous, reading.keep_columns)
    return schema, CellTable(labels, categorical, continuous, library_sizes.astype(np.float32)), coverage


def _encode_labels(
    obs: pd.DataFrame, schema: DatasetSchema, reading: Reading
) -> tuple[Int64[np.ndarray, "cells n_categorical"], Float32[np.ndarray, "cells n_continuous"]]:
    for names, allowed in (
        (reading.categorical, schema.categorical_names),
        (reading.continuous, schema.continuous_names),
    ):
        for name in set(names) - set(allowed):
            raise UserError(f"'{name}' is not an attribute of the model; {nearest_names(name, schema.attribute_names)}")
    if reading.missing_labels == "error":
        for name in schema.attribute_names:
            check_column(obs, name)
            check_labelled(obs[name], name)
    present = [name for name in schema.attribute_names if name in obs.columns]
    return schema.encode_attributes(obs[present], unknown=reading.missing_labels)


def _label_table(
    obs: pd.DataFrame,
    schema: DatasetSchema,
    categorical: Int64[np.ndarray, "cells n_categorical"],
    continuous: Float32[np.ndarray, "cells n_continuous"],
    keep_columns: tuple[str, ...],
) -> pd.DataFrame:
    labels = schema.decode_attributes(categorical, continuous)
    labels.index = pd.Index(obs.index.astype(str), name=None)
    for name in schema.continuous_names:
        # The column itself, not the float32 that a round trip through standardised values leaves of it.
        if name in obs.columns:
            labels[name] = numbers(obs[name], name)
    for name in keep_columns:
        if name not in labels:
            labels[name] = obs[name].array
    return labels

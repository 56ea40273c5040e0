"""From a path or an AnnData to a source of cells, with every check on the way."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scldm.data.counts import check_no_empty_cells, check_not_empty
from scldm.data.demo import load_demo
from scldm.data.genes import GeneCoverage, check_unique_genes
from scldm.data.schema import DatasetSchema, Names, as_names
from scldm.data.source import CellSource
from scldm.data.stores.base import CellData, Scan, Store
from scldm.data.stores.registry import open_store
from scldm.data.table import CellTable
from scldm.errors import UserError, require

__all__ = ["open_source"]

#: Share of the genes of a schema that cells have to have.
MIN_SHARED_GENES = 0.5


@dataclass(frozen=True)
class Reading:
    """How the caller of :func:`open_source` wants the data read; attributes as there."""

    categorical: tuple[str, ...]
    continuous: tuple[str, ...]
    schema: DatasetSchema | None
    min_cells_per_gene: int
    missing_labels: str
    keep_columns: tuple[str, ...]


def open_source(
    data: CellData,
    *,
    layer: str | None = None,
    categorical: Names = (),
    continuous: Names = (),
    schema: DatasetSchema | None = None,
    min_cells_per_gene: int = 3,
    missing_labels: str = "error",
    backed: bool = False,
    keep_columns: Names = (),
) -> CellSource:
    """Open cells for training or encoding.

    Parameters
    ----------
    data
        An AnnData, the path of an ``.h5ad`` file, or ``"demo"`` for the data that comes with the installation; whatever
        else a store in :data:`scldm.data.stores.registry.STORES` opens.
    layer
        Where the counts are: None for ``X``, the name of a layer, or ``"raw"``.
    categorical, continuous
        Names of the ``obs`` columns to condition on. With ``schema``, its own attributes are used and these may be left
        out.
    schema
        A schema to align to: genes by name (others are dropped, missing ones were not measured) and attributes by
        label. None makes a schema from the data.
    min_cells_per_gene
        Without ``schema``: genes expressed in fewer cells are left out.
    missing_labels
        ``"error"`` refuses cells without a label, or, with ``schema``, with a label the schema does not know;
        ``"unlabelled"`` keeps them without that attribute.
    backed
        Read counts from the file when they are needed instead of keeping them in memory.
    keep_columns
        Further ``obs`` columns to keep in ``source.obs`` as they are, for example to split by.

    Raises
    ------
    UserError
        For anything about the data that is not as it has to be.
    """
    require(
        missing_labels in ("error", "unlabelled"),
        f"missing_labels is '{missing_labels}'; allowed: 'error', 'unlabelled'",
    )
    reading = Reading(
        as_names(categorical),
        as_names(continuous),
        schema,
        min_cells_per_gene,
        missing_labels,
        as_names(keep_columns),
    )
    if isinstance(data, str) and data == "demo":
        data, backed = load_demo(), False
    with _naming_the_file(data):
        store, obs = open_store(data, layer, backed=backed)
        # Closed after use, because training may fork workers, which must not inherit an open file.
        with contextlib.closing(store):
            return _read(store, obs, reading)


def _read(store: Store, obs: pd.DataFrame, reading: Reading) -> CellSource:
    schema = reading.schema
    # What can be refused without reading the counts, which may take long, comes first.
    check_not_empty((store.n_cells, len(store.genes)))
    check_unique_genes(store.genes)
    genes, attributes = (None, None) if schema is None else (schema.genes, schema.attributes)
    if genes is not None:
        store.gene_map(genes, MIN_SHARED_GENES)
    table = CellTable.read(
        obs, reading.categorical, reading.continuous, reading.missing_labels, reading.keep_columns, attributes
    )
    scan = store.scan()
    check_no_empty_cells(scan.totals)
    if genes is None:
        genes = _frequent_genes(store, scan, reading)
    narrowed = store.narrowed(store.gene_map(genes).columns)
    gene_map = narrowed.gene_map(genes)
    all_kept = len(gene_map.columns) == len(store.genes)
    library_sizes = scan.totals if all_kept else narrowed.library_sizes(gene_map.columns)
    frequent = f"genes expressed in {reading.min_cells_per_gene} or more cells"
    check_no_empty_cells(library_sizes, f" on {frequent if schema is None else 'the genes of the model'}")
    coverage = GeneCoverage(
        n_schema=len(genes),
        n_found=len(gene_map.columns),
        missing=gene_map.missing,
        share_of_umis_kept=float(library_sizes.sum() / scan.totals.sum()),
        n_other_version=len(gene_map.columns) - len(pd.Index(narrowed.genes).intersection(pd.Index(genes))),
    )
    if schema is not None and coverage.is_low:
        warnings.warn(f"{coverage.sentence()}. Are genes named otherwise there?", UserWarning, stacklevel=2)
    return CellSource(
        store=narrowed,
        genes=gene_map,
        schema=schema or DatasetSchema.of_cells(genes, table, library_sizes),
        table=table,
        depths=library_sizes.astype(np.float32),
        coverage=coverage,
        rows=np.arange(store.n_cells),
        hashes=scan.hashes,
    )


def _frequent_genes(store: Store, scan: Scan, reading: Reading) -> tuple[str, ...]:
    genes = tuple(store.genes[scan.n_expressing >= reading.min_cells_per_gene].astype(str))
    require(
        bool(genes),
        f"no gene of {store.where} is expressed in {reading.min_cells_per_gene} or more cells; "
        "lower min_cells_per_gene",
    )
    return genes


@contextlib.contextmanager
def _naming_the_file(data: CellData) -> Iterator[None]:
    """Put the path of what is read into every error that does not name it."""
    try:
        yield
    except UserError as error:
        if isinstance(data, str | os.PathLike) and f"'{os.fspath(data)}'" not in str(error):
            raise UserError(f"in '{os.fspath(data)}': {error}") from error
        raise

"""Cells to be judged: counts over a common list of genes, and labels, from any AnnData."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, vstack

from scldm.data.counts import find_counts, read_counts
from scldm.data.genes import without_versions
from scldm.data.labels import as_labels, spelled_like
from scldm.errors import UserError, nearest_names

__all__ = ["Cells", "gene_means", "has_layer", "log1p_cp10k", "read_cells"]

# A column of numbers with more values than this is a measurement, not a label; one of text or whole numbers, a name.
_MAX_LABELS = 50
# Unless there are many cells: this share of them is the most.
_MAX_SHARE_OF_LABELS = 0.1


def log1p_cp10k(counts: csr_matrix) -> csr_matrix:
    """Scale every cell to 10,000 counts and take log(1 + x); a cell without any count stays zero."""
    library_size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = 1e4 / np.maximum(library_size, 1.0)
    data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr)))
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def gene_means(matrix: csr_matrix) -> Float[np.ndarray, " genes"]:
    """Compute every gene's mean over cells, in the unit of the matrix."""
    return np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel() / matrix.shape[0]


@dataclass(frozen=True, eq=False)
class Cells:
    """Counts and labels of some cells; what is derived from them is computed once, when first asked for.

    Counts are UMI counts, cells x genes, and the genes their names. The labels have one column per judged condition
    that the file has, as text; missing labels are None.
    """

    counts: csr_matrix
    genes: pd.Index
    labels: pd.DataFrame

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def take(self, cells: Int[np.ndarray, " chosen"]) -> Cells:
        """Select cells by position."""
        return Cells(self.counts[cells], self.genes, self.labels.iloc[cells].reset_index(drop=True))

    def and_then(self, other: Cells) -> Cells:
        """Put other cells, with the same genes, behind these; columns of labels that one of them lacks are left out."""
        columns = [column for column in self.labels if column in other.labels]
        labels = pd.concat([self.labels[columns], other.labels[columns]], ignore_index=True)
        counts = csr_matrix(vstack([self.counts, other.counts]))
        return Cells(counts, self.genes, labels.astype(object).where(labels.notna(), None))

    def with_genes(self, genes: pd.Index) -> Cells:
        """Select genes by name, in the given order; raises ``ValueError`` if one of them does not exist."""
        positions = self.genes.get_indexer(genes)
        if (positions < 0).any():
            raise ValueError(f"the cells have no gene '{genes[positions < 0][0]}'")
        if np.array_equal(positions, np.arange(len(self.genes))):
            return self
        counts = self.counts[:, positions].tocsr()
        counts.sort_indices()  # so that sums do not depend on the file's order of genes, to the last bit
        return Cells(counts, genes, self.labels)

    def spelled_like(self, others: Cells) -> Cells:
        """Give labels that are numbers the spelling that other cells have for the same numbers."""
        columns = {
            name: spelled_like(self.labels[name].to_numpy(), others.labels[name].to_numpy())
            for name in self.labels.columns
        }
        return Cells(self.counts, self.genes, pd.DataFrame(columns, index=self.labels.index))

    @cached_property
    def log1p_cp10k(self) -> csr_matrix:
        """log1p CP10K, cells x genes."""
        return log1p_cp10k(self.counts)

    @cached_property
    def library_size(self) -> Float[np.ndarray, " cells"]:
        """Total UMI counts of every cell."""
        return np.asarray(self.counts.sum(axis=1, dtype=np.float64)).ravel()

    @cached_property
    def gene_means(self) -> Float[np.ndarray, " genes"]:
        """Mean log1p CP10K of every gene."""
        return gene_means(self.log1p_cp10k)

    @cached_property
    def zero_fractions(self) -> Float[np.ndarray, " genes"]:
        """Share of cells without a count, for every gene."""
        n_positive = np.bincount(self.counts.indices[self.counts.data != 0], minlength=len(self.genes))
        return 1.0 - n_positive / len(self)


def has_layer(adata: AnnData, layer: str | None) -> bool:
    """Whether a file has a layer of this name; ``raw`` and ``X`` are layers as well."""
    return layer in adata.layers or (layer == "raw" and adata.raw is not None) or (layer == "X" and adata.X is not None)


def read_cells(adata: AnnData, name: str, layer: str | None, conditions: Sequence[str], *, optional: bool) -> Cells:
    """Read and check the raw counts of one file, and the columns of ``obs`` that are labels; see `evaluate`.

    The name, such as ``"the generated cells"``, is for errors: counts that are not raw counts, genes that are named
    twice, a column that is missing or not a label. A file without the layer has its counts in ``X``. If `optional`, a
    column that the file lacks is left out instead, and a column may hold too many labels: real cells say what is a
    label.
    """
    if not has_layer(adata, layer):
        layer = None
    try:
        counts = read_counts(adata, layer)
        genes = pd.Index(find_counts(adata, layer).genes.astype(str))
    except UserError as error:
        raise UserError(f"In {name}: {error}") from error
    if (bare := without_versions(genes)).is_unique:
        genes = bare  # so that files agree whose Ensembl identifiers are of different releases
    if not genes.is_unique:
        twice = genes[genes.duplicated()][0]
        raise UserError(f"In {name}: the gene '{twice}' is there more than once; gene names must be unique")
    columns: dict[str, np.ndarray] = {}
    for column in conditions:
        if column in adata.obs:
            columns[column] = _labels_of(adata.obs[column], name, generated=optional)
        elif not optional:
            hint = nearest_names(column, adata.obs.columns) if len(adata.obs.columns) else "obs has no columns"
            raise UserError(f"In {name}: there is no obs column '{column}'; {hint}")
    return Cells(counts, genes, pd.DataFrame(columns, index=range(adata.n_obs)))


def _labels_of(column: pd.Series, name: str, *, generated: bool) -> np.ndarray:
    """Read a column of labels as text, None where one is missing; refuse a column of measurements or names."""
    n_values, is_float = column.nunique(), pd.api.types.is_float_dtype(column)
    if is_float and n_values > _MAX_LABELS:
        raise UserError(
            f"In {name}: the obs column '{column.name}' holds {n_values} different numbers; "
            "only columns of labels (categories) can be judged"
        )
    if not generated and n_values > max(_MAX_LABELS, _MAX_SHARE_OF_LABELS * len(column)):
        raise UserError(
            f"In {name}: the obs column '{column.name}' holds {n_values} different values in {len(column)} cells; "
            "only columns of labels can be judged"
        )
    return as_labels(column)

"""Where the genes of a file are in a schema, by name, and which genes of the schema the file did not measure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Bool, Int64

from scldm.errors import UserError

__all__ = ["GeneCoverage", "GeneMap", "check_unique_genes", "move_columns", "take_columns", "without_versions"]

# An Ensembl identifier of a gene, of any species, with the version that changes from release to release.
_ENSEMBL_VERSION = re.compile(r"^(ENS[A-Z]*G\d{6,})\.\d+$")
# With less than this, most users have named genes otherwise without knowing it.
MIN_COVERAGE = 0.9


@dataclass(frozen=True)
class GeneCoverage:
    """How well the genes of a file cover those of a schema.

    Attributes
    ----------
    n_schema
        Genes of the schema.
    n_found
        How many of them the file has.
    missing
        The names of the others, which were not measured: nothing is known of their counts.
    share_of_umis_kept
        UMI counts on genes of the schema divided by all UMI counts of the file.
    n_other_version
        How many were found under another version of their Ensembl identifier.
    """

    n_schema: int
    n_found: int
    missing: tuple[str, ...]
    share_of_umis_kept: float
    n_other_version: int = 0

    @property
    def is_low(self) -> bool:
        """Whether so many genes are missing that the cells are not what they are taken for.

        Counts on other genes say nothing where none is missing: the model is one of selected genes.
        """
        few_counts = bool(self.missing) and self.share_of_umis_kept < MIN_COVERAGE
        return self.n_found < MIN_COVERAGE * self.n_schema or few_counts

    def sentence(self) -> str:
        """Tell it in a sentence."""
        kept = f"{self.share_of_umis_kept:.1%} of the UMI counts are on them"
        if self.n_other_version:
            kept += f"; {self.n_other_version} of them have another version of their Ensembl identifier"
        if not self.missing:
            return f"all {self.n_schema} genes of the model are in the data; {kept}"
        examples = ", ".join(self.missing[:3]) + (", ..." if len(self.missing) > 3 else "")
        return (
            f"{self.n_found} of the {self.n_schema} genes of the model are in the data; {kept}; "
            f"{len(self.missing)} missing genes ({examples}) were not measured"
        )


@dataclass(frozen=True, eq=False)
class GeneMap:
    """Where the genes of a store are in a schema.

    Attributes
    ----------
    target
        For every gene of the store its index in the schema, -1 if the schema does not have it.
    n_genes
        Genes of the schema.
    missing
        Genes of the schema that the store did not measure, in the order of the schema.
    """

    target: Int64[np.ndarray, " store_genes"]
    n_genes: int
    missing: tuple[str, ...]

    @classmethod
    def between(
        cls, store_genes: Sequence[str] | pd.Index, schema_genes: Sequence[str], min_shared: float = 0.0
    ) -> GeneMap:
        """Find the genes of a schema among those of a store, by name; the version of an Ensembl identifier may differ.

        Parameters
        ----------
        store_genes
            Unique names.
        schema_genes
            Unique names in the order of the schema.
        min_shared
            Fraction of the genes of the schema that the store has to have.

        Raises
        ------
        UserError
            If too few genes are shared, or none.
        """
        wanted: pd.Index[str] = pd.Index(list(schema_genes))
        have: pd.Index[str] = pd.Index(list(store_genes))
        target = wanted.get_indexer(have).astype(np.int64)
        is_found = np.zeros(len(wanted), dtype=bool)
        is_found[target[target >= 0]] = True
        if not is_found.all():
            # What is left over on both sides may differ by the version of an Ensembl identifier only.
            open_wanted, open_have = np.flatnonzero(~is_found), np.flatnonzero(target < 0)
            bare_wanted, bare_have = without_versions(wanted[open_wanted]), without_versions(have[open_have])
            is_clear = ~bare_have.duplicated(keep=False) & ~bare_have.isin(bare_wanted[bare_wanted.duplicated()])
            places = bare_wanted[~bare_wanted.duplicated()].get_indexer(bare_have[is_clear])
            unique_wanted = open_wanted[~bare_wanted.duplicated()]
            target[open_have[is_clear]] = np.where(places < 0, -1, unique_wanted[places])
            is_found[target[target >= 0]] = True
        missing = tuple(wanted[~is_found].tolist())
        n_found = len(wanted) - len(missing)
        if n_found == 0 or n_found < min_shared * len(wanted):
            foreign = have[target < 0]
            names = f"its genes are named like '{foreign[0]}', those" if len(foreign) else "it lacks, for example,"
            names += f" of the model like '{missing[0]}'" if len(foreign) else f" '{missing[0]}'"
            raise UserError(
                f"the data has {n_found} of the {len(wanted)} genes of the model, fewer than {min_shared:.0%}; {names}"
            )
        return cls(target, len(wanted), missing)

    @cached_property
    def columns(self) -> Int64[np.ndarray, " shared"]:
        """Columns of the store that hold genes of the schema, in the order of the schema."""
        shared = np.flatnonzero(self.target >= 0)
        return shared[np.argsort(self.target[shared])]

    @cached_property
    def measured(self) -> Bool[np.ndarray, " genes"] | None:
        """Tells which genes of the schema the store measured; None if it measured all."""
        if not self.missing:
            return None
        measured = np.zeros(self.n_genes, dtype=bool)
        measured[self.target[self.columns]] = True
        return measured

    def align(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        """Turn a canonical CSR matrix over the genes of the store into one over the genes of the schema."""
        return move_columns(matrix, self.target, self.n_genes)


def without_versions(names: pd.Index) -> pd.Index:
    """Return names of genes without the versions of Ensembl identifiers: ``ENSG00000139618.15`` loses its ``.15``."""
    return pd.Index([_ENSEMBL_VERSION.sub(r"\1", str(name)) for name in names], dtype=object)


def take_columns(matrix: sp.csr_matrix, columns: Int64[np.ndarray, " chosen"]) -> sp.csr_matrix:
    """Return different columns of a canonical CSR matrix in the order given; all in their order is the matrix."""
    target = np.full(matrix.shape[1], -1)
    target[columns] = np.arange(len(columns))
    return move_columns(matrix, target, len(columns))


def move_columns(matrix: sp.csr_matrix, target: Int64[np.ndarray, " columns"], n_columns: int) -> sp.csr_matrix:
    """Move columns of a canonical CSR matrix to ``target``, dropping those with -1; the result is canonical."""
    if len(target) == n_columns and (target == np.arange(n_columns)).all():
        return matrix
    columns = target[matrix.indices]
    kept = columns >= 0
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    indptr = kept_before[matrix.indptr]
    moved = sp.csr_matrix((matrix.data[kept], columns[kept], indptr), shape=(matrix.shape[0], n_columns))
    moved.sort_indices()
    return moved


def check_unique_genes(genes: Sequence[str] | np.ndarray | pd.Index) -> None:
    """Raise ``UserError`` if a gene name occurs twice."""
    index = pd.Index(list(genes))
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()
        raise UserError(
            f"{len(repeated)} gene names occur more than once, for example '{repeated[0]}'; "
            "genes are told apart by name, so make them unique with adata.var_names_make_unique()"
        )

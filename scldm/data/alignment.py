"""Bringing the genes of a file into the order of a schema, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Int64

from scldm.errors import UserError

__all__ = ["GeneCoverage", "align_columns", "column_map"]


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
        The names of the others, which count as zero.
    share_of_umis_kept
        UMI counts on genes of the schema divided by all UMI counts of the file.
    """

    n_schema: int
    n_found: int
    missing: tuple[str, ...]
    share_of_umis_kept: float

    def sentence(self) -> str:
        """Tell it in a sentence."""
        kept = f"{self.share_of_umis_kept:.1%} of the UMI counts are on them"
        if not self.missing:
            return f"all {self.n_schema} genes of the model are in the data; {kept}"
        examples = ", ".join(self.missing[:3]) + (", ..." if len(self.missing) > 3 else "")
        return (
            f"{self.n_found} of the {self.n_schema} genes of the model are in the data; {kept}; "
            f"{len(self.missing)} missing genes ({examples}) count as zero"
        )


def column_map(
    file_genes: Sequence[str] | pd.Index, schema_genes: Sequence[str], min_shared: float = 0.5
) -> tuple[Int64[np.ndarray, " file_genes"], tuple[str, ...]]:
    """Find the genes of a schema in a file.

    Parameters
    ----------
    file_genes
        Unique names of the columns of the file.
    schema_genes
        Unique names in the order of the schema.
    min_shared
        Fraction of the genes of the schema that the file has to have.

    Returns
    -------
    target
        For every column of the file the index of the gene in the schema, -1 if it is not there.
    missing
        Genes of the schema that the file lacks.

    Raises
    ------
    UserError
        If too few genes are shared.
    """
    wanted: pd.Index[str] = pd.Index(list(schema_genes))
    have: pd.Index[str] = pd.Index(list(file_genes))
    target = wanted.get_indexer(have).astype(np.int64)
    missing = tuple(wanted[~wanted.isin(have)].tolist())
    n_found = len(wanted) - len(missing)
    if n_found == 0 or n_found < min_shared * len(wanted):
        foreign = have[target < 0]
        names = f"its genes are named like '{foreign[0]}', those" if len(foreign) else "it lacks, for example,"
        names += f" of the model like '{missing[0]}'" if len(foreign) else f" '{missing[0]}'"
        raise UserError(
            f"the data has {n_found} of the {len(wanted)} genes of the model, fewer than {min_shared:.0%}; {names}"
        )
    return target, missing


def align_columns(matrix: sp.csr_matrix, target: Int64[np.ndarray, " file_genes"], n_genes: int) -> sp.csr_matrix:
    """Move columns of a canonical CSR matrix to ``target``, dropping those with -1; the result is canonical."""
    if len(target) == n_genes and (target == np.arange(n_genes)).all():
        return matrix
    columns = target[matrix.indices]
    kept = columns >= 0
    kept_before = np.concatenate([[0], np.cumsum(kept)])
    indptr = kept_before[matrix.indptr]
    aligned = sp.csr_matrix((matrix.data[kept], columns[kept], indptr), shape=(matrix.shape[0], n_genes))
    aligned.sort_indices()
    return aligned

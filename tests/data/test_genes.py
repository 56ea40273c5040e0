from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from scldm.data.genes import GeneCoverage, GeneMap, check_unique_genes, take_columns
from scldm.errors import UserError

gene_lists = st.lists(st.sampled_from("ABCDEFGHIJ"), unique=True, min_size=1)


@given(file_genes=gene_lists, schema_genes=gene_lists, seed=st.integers(0, 99))
def test_every_gene_lands_where_its_name_says(file_genes: list[str], schema_genes: list[str], seed: int) -> None:
    dense = np.random.default_rng(seed).poisson(0.7, (4, len(file_genes))).astype(np.float32)
    if not set(file_genes) & set(schema_genes):
        with pytest.raises(UserError, match=r"named like '.', those of the model like '.'"):
            GeneMap.between(file_genes, schema_genes)
        return

    genes = GeneMap.between(file_genes, schema_genes)
    aligned = genes.align(sp.csr_matrix(dense))

    expected = np.zeros((4, len(schema_genes)))
    for i, gene in enumerate(schema_genes):
        if gene in file_genes:
            expected[:, i] = dense[:, file_genes.index(gene)]
    np.testing.assert_array_equal(aligned.toarray(), expected)
    assert aligned.has_canonical_format
    assert genes.missing == tuple(gene for gene in schema_genes if gene not in file_genes)

    assert genes.columns.tolist() == [file_genes.index(gene) for gene in schema_genes if gene in file_genes]
    taken = take_columns(sp.csr_matrix(dense), genes.columns)
    assert taken.has_canonical_format
    np.testing.assert_array_equal(taken.toarray(), dense[:, genes.columns])
    if genes.missing:
        assert genes.measured.tolist() == [gene in file_genes for gene in schema_genes]
    else:
        assert genes.measured is None


def test_repeated_genes_are_refused() -> None:
    check_unique_genes(["A", "B"])
    with pytest.raises(UserError, match=r"1 gene names occur more than once, for example 'A'.*var_names_make_unique"):
        check_unique_genes(["A", "B", "A"])


def test_too_few_shared_genes_are_refused() -> None:
    schema_genes = ["A", "B", "C", "D"]
    GeneMap.between(["A", "B"], schema_genes, 0.5)
    with pytest.raises(UserError, match="the data has 1 of the 4 genes of the model, fewer than 50%"):
        GeneMap.between(["A", "ENSG1"], schema_genes, 0.5)


def test_coverage_is_told_in_a_sentence() -> None:
    assert GeneCoverage(3, 3, (), 1.0).sentence() == (
        "all 3 genes of the model are in the data; 100.0% of the UMI counts are on them"
    )
    assert GeneCoverage(9, 5, ("A", "B", "C", "D"), 0.876).sentence() == (
        "5 of the 9 genes of the model are in the data; 87.6% of the UMI counts are on them; "
        "4 missing genes (A, B, C, ...) were not measured"
    )

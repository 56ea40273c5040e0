from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scldm.data import open_source
from scldm.data.genes import GeneMap, without_versions


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("ENSG00000139618.15", "ENSG00000139618"),
        ("ENSMUSG00000017146.13", "ENSMUSG00000017146"),
        ("ENSG00000139618", "ENSG00000139618"),
        ("RP11-34P13.7", "RP11-34P13.7"),
        ("GENE1.1", "GENE1.1"),
        ("ENSG00000002586.20_PAR_Y", "ENSG00000002586.20_PAR_Y"),
    ],
)
def test_only_versions_of_ensembl_identifiers_are_cut_off(name, bare):
    assert without_versions(pd.Index([name])).tolist() == [bare]


@pytest.mark.parametrize(
    ("have", "wanted", "target"),
    [
        (["ENSG00000000001.5", "ENSG00000000002"], ["ENSG00000000002.1", "ENSG00000000001"], [1, 0]),
        # The exact name goes before another version of it.
        (["ENSG00000000001.5", "ENSG00000000001.6"], ["ENSG00000000001.6"], [-1, 0]),
        # Two that could be meant: neither is.
        (["ENSG00000000001.5", "ENSG00000000001.6", "B"], ["ENSG00000000001.7", "B"], [-1, -1, 1]),
        (["ENSG00000000001.5", "B"], ["ENSG00000000001.7", "ENSG00000000001.8", "B"], [-1, 2]),
        (["A.1", "B"], ["A", "B"], [-1, 1]),
    ],
)
def test_genes_are_matched_without_versions_where_that_is_clear(have, wanted, target):
    assert GeneMap.between(have, wanted).target.tolist() == target


def test_counts_follow_their_gene_whatever_its_version():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (5, 30)).astype(np.float32)
    plain = ad.AnnData(counts, var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(30)]))
    schema = open_source(plain, min_cells_per_gene=1).schema
    other = plain[:, ::-1].copy()
    other.var_names = [f"{name}.7" for name in other.var_names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_source(other, schema=schema)
    np.testing.assert_array_equal(source._read(np.arange(5)).toarray(), counts)
    assert source.coverage.n_other_version == 30
    assert "30 of them have another version of their Ensembl identifier" in source.coverage.sentence()
    assert open_source(plain, schema=schema).coverage.n_other_version == 0


@pytest.mark.parametrize(("n_renamed", "warns"), [(0, False), (2, False), (5, True)])
def test_low_coverage_of_the_genes_warns(n_renamed, warns):
    counts = np.ones((5, 30), dtype=np.float32)
    plain = ad.AnnData(counts, var=pd.DataFrame(index=[f"G{i}" for i in range(30)]))
    schema = open_source(plain, min_cells_per_gene=1).schema
    other = plain.copy()
    other.var_names = [f"other{i}" if i < n_renamed else f"G{i}" for i in range(30)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        open_source(other, schema=schema)
    assert [str(w.message).startswith("25 of the 30 genes of the model") for w in said] == [True] * warns


def test_a_model_of_selected_genes_is_no_reason_to_warn():
    """Most of the counts of a file may be on genes that the model never had."""
    counts = np.ones((5, 300), dtype=np.float32)
    whole = ad.AnnData(counts, var=pd.DataFrame(index=[f"G{i}" for i in range(300)]))
    schema = open_source(whole[:, :60].copy(), min_cells_per_gene=1).schema
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_source(whole, schema=schema)
    assert source.coverage.share_of_umis_kept == 0.2

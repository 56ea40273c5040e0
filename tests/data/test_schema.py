from __future__ import annotations

import json
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scldm.data import CategoricalAttribute, DatasetSchema, DepthStatistics, open_source
from scldm.errors import UserError


def schema_of(adata: ad.AnnData, categorical: object = (), continuous: object = (), **options: Any) -> DatasetSchema:
    return open_source(adata, categorical=categorical, continuous=continuous, min_cells_per_gene=0, **options).schema


@pytest.fixture
def schema(adata: ad.AnnData) -> DatasetSchema:
    return schema_of(adata, ["cell_type", "batch"], ["age"])


names = st.text(min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def schema_fields(draw: st.DrawFn) -> dict[str, Any]:
    attribute_names = draw(st.lists(names, unique=True, max_size=4))
    n_categorical = draw(st.integers(0, len(attribute_names)))
    tables = [draw(st.lists(names, unique=True, min_size=1, max_size=4)) for _ in range(n_categorical)]
    codes = st.tuples(*(st.integers(-1, len(table) - 1) for table in tables))
    measured = st.fixed_dictionaries({"mean": finite, "std": finite, "minimum": finite, "maximum": finite})
    quantiles = draw(st.lists(st.floats(1, 1e6), min_size=2, max_size=9))
    return {
        "format_version": 1,
        "genes": draw(st.lists(names, unique=True, min_size=1)),
        "categorical": [
            {"name": name, "categories": table, "counts": list(range(1, len(table) + 1))}
            for name, table in zip(attribute_names, tables, strict=False)
        ],
        "continuous": [{"name": name, **draw(measured)} for name in attribute_names[n_categorical:]],
        "depth": {"n_cells": draw(st.integers(1, 10**9)), "quantiles": sorted(quantiles)},
        "n_cells": draw(st.integers(1, 10**9)),
        "combinations": [list(row) for row in sorted(draw(st.sets(codes, max_size=5)))] if tables else [],
    }


@settings(max_examples=50)
@given(fields=schema_fields())
def test_a_schema_survives_json(fields: dict[str, Any]) -> None:
    schema = DatasetSchema.from_dict(fields)
    assert schema.to_dict() == fields
    assert DatasetSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert schema.attribute_names == tuple(a["name"] for a in fields["categorical"] + fields["continuous"])


def test_a_schema_describes_its_data(schema: DatasetSchema, adata: ad.AnnData) -> None:
    assert schema.genes == tuple(adata.var_names)
    assert schema.n_genes == 12
    assert schema.n_cells == 60
    assert schema.attribute_names == ("cell_type", "batch", "age")
    assert schema.n_categories == (3, 3)
    assert schema.categorical[0].categories == ("T cell", "monocyte", "B cell")
    assert sum(schema.categorical[0].counts) == 60
    assert schema.depth == DepthStatistics.from_library_sizes(adata.X.toarray().sum(axis=1))
    seen = {(c, str(b)) for c, b in zip(adata.obs["cell_type"], adata.obs["batch"], strict=True)}
    tables = [a.categories for a in schema.categorical]
    assert {(tables[0][i], tables[1][j]) for i, j in schema.combinations} == seen
    assert list(schema.combinations) == sorted(set(schema.combinations))


def test_attributes_survive_encoding(schema: DatasetSchema, adata: ad.AnnData) -> None:
    columns = ["age", "batch", "cell_type"]
    decoded = schema.decode_attributes(*schema.encode_attributes(adata.obs[columns]))
    assert list(decoded.columns) == ["cell_type", "batch", "age"]
    assert (decoded["cell_type"].astype(str).to_numpy() == adata.obs["cell_type"].astype(str).to_numpy()).all()
    assert (decoded["batch"].astype(int).to_numpy() == adata.obs["batch"].to_numpy()).all()
    np.testing.assert_allclose(decoded["age"], adata.obs["age"], rtol=1e-5)
    assert list(decoded["cell_type"].cat.categories) == ["T cell", "monocyte", "B cell"]


def test_absent_and_missing_attributes_are_unlabelled(schema: DatasetSchema) -> None:
    codes, values = schema.encode_attributes(pd.DataFrame({"batch": ["2", None]}))
    assert codes.tolist() == [[-1, 1], [-1, -1]]
    assert np.isnan(values).all()
    assert values.shape == (2, 1)
    decoded = schema.decode_attributes(codes, values)
    assert decoded["cell_type"].isna().all()


def test_requests_for_what_the_model_does_not_know_are_refused(schema: DatasetSchema) -> None:
    with pytest.raises(UserError, match=r"unknown attribute 'celltype'; did you mean 'cell_type'"):
        schema.encode_attributes(pd.DataFrame({"celltype": ["B cell"]}))
    with pytest.raises(UserError, match=r"'B-cell' is not a value of 'cell_type'.*'B cell'"):
        schema.encode_attributes(pd.DataFrame({"cell_type": ["B-cell"]}))
    with pytest.raises(UserError, match="'age' holds 'old', which is not a number"):
        schema.encode_attributes(pd.DataFrame({"age": ["old"]}))


def test_a_model_without_attributes_says_so(adata: ad.AnnData) -> None:
    schema = schema_of(adata)
    with pytest.raises(UserError, match="the model has no attributes"):
        schema.encode_attributes(adata.obs[["batch"]])
    assert schema.combinations == ()
    assert schema.observed(np.empty((3, 0), dtype=np.int64)).tolist() == [True] * 3


def test_genes_are_found_by_name(schema: DatasetSchema) -> None:
    assert schema.gene_index(["GENE3", "GENE0"]).tolist() == [3, 0]
    assert schema.gene_index([]).tolist() == []
    with pytest.raises(UserError, match=r"unknown gene 'gene33' \(and 1 more\); did you mean 'GENE3'"):
        schema.gene_index(["GENE1", "gene33", "XYZ"])


@given(
    seen=st.sets(st.tuples(st.integers(-1, 2), st.integers(-1, 1), st.integers(-1, 2)), min_size=1, max_size=6),
    asked=st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 1), st.integers(-1, 2)), min_size=1, max_size=12),
)
def test_a_combination_was_observed_if_a_cell_agrees_wherever_it_is_given(
    seen: set[tuple[int, int, int]], asked: list[tuple[int, int, int]]
) -> None:
    schema = DatasetSchema(
        genes=("g",),
        categorical=tuple(
            CategoricalAttribute(n, tuple("abc"[:k]), (1,) * k) for n, k in zip("xyz", (3, 2, 3), strict=True)
        ),
        continuous=(),
        depth=DepthStatistics(1, (1.0, 2.0)),
        n_cells=1,
        combinations=tuple(sorted(seen)),
    )
    expected = [any(all(q in (-1, s) for q, s in zip(query, row, strict=True)) for row in seen) for query in asked]
    assert schema.observed(np.array(asked)).tolist() == expected


def test_unlabelled_cells_are_a_combination_of_their_own(adata: ad.AnnData) -> None:
    adata.obs.iloc[:4, adata.obs.columns.get_loc("cell_type")] = np.nan
    assert (-1,) in schema_of(adata, ["cell_type"], missing_labels="unlabelled").combinations


def test_one_name_may_be_given_as_text(adata: ad.AnnData) -> None:
    schema = schema_of(adata, "cell_type", "age")
    assert schema.attribute_names == ("cell_type", "age")


def test_what_is_not_a_schema_is_refused(schema: DatasetSchema) -> None:
    known = schema.to_dict()
    for content, sentence in [
        ([], "no format_version"),
        ({**known, "format_version": 99}, "format version 99.*update scldm"),
        ({"format_version": 1}, "damaged: KeyError 'genes'"),
        ({**known, "depth": {"n_cells": 0, "quantiles": [1]}}, "damaged"),
    ]:
        with pytest.raises(UserError, match=sentence):
            DatasetSchema.from_dict(content)


def test_nothing_cannot_be_described(adata: ad.AnnData) -> None:
    with pytest.raises(UserError, match="0 cells and 12 genes"):
        schema_of(adata[:0].copy())

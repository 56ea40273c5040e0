from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from scldm.data.schema import DatasetSchema
from scldm.errors import UserError
from scldm.generation.request import CHUNK_CELLS, GenerationRequest
from scldm.prior.guidance import Guidance


@pytest.fixture
def schema(trained) -> DatasetSchema:
    return trained.schema


def build(schema, *args, **options) -> GenerationRequest:
    return GenerationRequest.build(schema, *args, **options)


def test_attributes_that_are_not_asked_for_are_left_open(schema):
    request = build(schema, 5)
    assert (request.n_cells, request.given) == (5, ())
    assert (request.categorical == -1).all()
    assert np.isnan(request.continuous).all()
    assert (request.depth, request.genes) == (None, None)
    assert request.requested_obs(schema).shape == (5, 0)


def test_one_value_is_for_all_cells_and_a_list_is_one_per_cell(schema):
    request = build(schema, conditions={"batch": "two", "cell_type": ["T cell", "B cell", "T cell"]})
    # In the order of the schema, whatever the order asked in.
    assert request.given == ("cell_type", "batch")
    obs = request.requested_obs(schema)
    assert obs["cell_type"].tolist() == ["T cell", "B cell", "T cell"]
    assert obs["batch"].tolist() == ["two"] * 3
    assert tuple(obs["cell_type"].cat.categories) == schema.categorical[0].categories


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Categorical])
def test_values_per_cell_may_come_in_any_sequence(schema, kind):
    values = kind(["B cell", "T cell"])
    request = build(schema, conditions={"cell_type": values})
    assert request.requested_obs(schema)["cell_type"].tolist() == ["B cell", "T cell"]


def test_table_gives_one_cell_per_row_whatever_its_index(schema):
    table = pd.DataFrame({"cell_type": ["B cell", "T cell"], "age": [30.0, 60.0]}, index=["x", "y"])
    request = build(schema, conditions=table)
    obs = request.requested_obs(schema)
    assert obs["cell_type"].tolist() == ["B cell", "T cell"]
    assert obs["age"].tolist() == pytest.approx([30.0, 60.0], rel=1e-6)
    age = schema.continuous[0]
    np.testing.assert_allclose(request.continuous[:, 0], (np.array([30, 60]) - age.mean) / age.std, rtol=1e-5)


def test_depth_may_be_one_number_or_one_per_cell(schema):
    least, most = schema.depth.minimum, schema.depth.maximum
    assert build(schema, 3, depth=most).depth.tolist() == [most] * 3
    assert build(schema, depth=[least, least + 0.5, most]).depth.tolist() == [least, least + 0.5, most]


def test_genes_are_found_by_name_in_the_order_asked_for(schema):
    names = [schema.genes[7], schema.genes[0]]
    assert build(schema, 1, genes=names).genes.tolist() == [7, 0]
    assert build(schema, 1, genes=schema.genes[7]).genes.tolist() == [7]


def test_chunks_cover_all_cells_once(schema):
    for n_cells in (1, CHUNK_CELLS - 1, CHUNK_CELLS, CHUNK_CELLS + 1, 1000):
        request = build(schema, n_cells)
        cells = np.concatenate([np.arange(n_cells)[request.chunk_cells(c)] for c in range(request.n_chunks)])
        np.testing.assert_array_equal(cells, np.arange(n_cells))
        assert request.chunk_cells(request.n_chunks - 1).start < n_cells


def test_guidance_is_parsed(schema):
    conditions = {"cell_type": "T cell", "batch": "one"}
    assert build(schema, 1, conditions=conditions, guidance=2).guidance == Guidance.joint(2.0)
    additive = build(schema, 1, conditions=conditions, guidance={"batch": 3.0}).guidance
    assert additive == Guidance.additive({"batch": 3.0})


UNSEEN = {"cell_type": "monocyte", "batch": "two"}


def test_combination_that_was_never_observed_warns_once_and_names_it(schema):
    with pytest.warns(UserWarning, match=r"never observed.*cell_type='monocyte' \+ batch='two'") as caught:
        build(schema, 50, conditions=UNSEEN)
    assert len(caught) == 1


def test_observed_combinations_do_not_warn(schema):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(schema, 5)
        build(schema, 5, conditions={"cell_type": "monocyte"})
        build(schema, 5, conditions={"batch": "two"})
        build(schema, 5, conditions={"cell_type": "monocyte", "batch": "one"})


def test_numbers_and_depths_outside_the_training_range_are_one_warning(schema):
    age, depth = schema.continuous[0], schema.depth
    with pytest.warns(UserWarning, match="outside the range of the training data") as caught:
        build(schema, conditions={"age": [age.mean, age.maximum + 1, 900.0]}, depth=[depth.median, 1e6, depth.median])
    (message,) = [str(warning.message) for warning in caught]
    assert "'age' in 2 of 3 cells" in message
    assert "depth in 1 of 3 cells, such as 1e+06" in message
    assert message.endswith("The model extrapolates.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(schema, conditions={"age": [age.minimum, age.maximum]}, depth=[depth.minimum, depth.maximum])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_cells": 0}, "n_cells is 0"),
        ({"n_cells": 10**400}, "n_cells is 1000"),
        ({"n_cells": 1, "steps": 10**9}, "steps is 1000000000; the solver takes 1 to 10,000 steps"),
        ({"n_cells": 2, "conditions": {"cell_type": {"T cell", "B cell"}}}, "a set, which does not say which cell"),
        ({"n_cells": 2, "conditions": {"cell_type": {"T cell": 2}}}, "a dict, which does not say which cell"),
        ({"n_cells": 2, "conditions": {"cell_type": [["T cell"]] * 2}}, "values that are no labels"),
        ({"n_cells": 2, "conditions": {"cell_type": np.array([["T cell"]] * 2)}}, r"have the shape \(2, 1\)"),
        ({"n_cells": 2, "conditions": {"age": 10**400}}, "a number of 401 digits"),
        ({"n_cells": 2, "conditions": {"age": [10**400] * 2}}, "the values of 'age' cannot be read"),
        ({"n_cells": 2, "conditions": {"age": 1 + 2j}}, "complex numbers"),
        ({"n_cells": 2, "conditions": {"age": [True, False]}}, "true and false"),
        ({"n_cells": 2, "depth": 10**400}, "the depths are 1000.*401 digits"),
        ({"n_cells": 2, "depth": {100}}, "the depths are a set"),
        ({"n_cells": 2, "depth": True}, "depth is True; give a number of UMI"),
        ({"n_cells": 2, "depth": 1 + 2j}, "give a number of UMI"),
        ({"n_cells": 2, "depth": [100, None]}, "depth is nan"),
        ({"n_cells": -3}, "n_cells is -3"),
        ({}, "how many cells"),
        ({"n_cells": 1, "steps": 0}, "steps is 0"),
        ({"n_cells": 1, "seed": -1}, "seed is -1"),
        ({"n_cells": 1, "solver": "huen"}, "unknown solver 'huen'; did you mean 'heun'"),
        (
            {"n_cells": 1, "conditions": {"cell_typ": "T cell"}},
            "unknown attribute 'cell_typ'; did you mean 'cell_type'",
        ),
        ({"n_cells": 1, "conditions": {"cell_type": "T cel"}}, "'T cel' is not a value of 'cell_type'.*'T cell'"),
        ({"n_cells": 1, "conditions": {"cell_type": None}}, "'cell_type' .* missing for every cell; leave the"),
        ({"conditions": {"cell_type": [np.nan, None]}}, "'cell_type' .* missing for every cell; leave the"),
        ({"n_cells": 1, "conditions": {"age": "old"}}, "(?=.*'age')(?=.*'old').*a number"),
        ({"n_cells": 1, "conditions": {"age": float("inf")}}, "(?=.*'age').*inf"),
        ({"n_cells": 3, "conditions": {"cell_type": ["T cell"] * 2}}, "the values of 'cell_type' are 2, but 3 cells"),
        ({"depth": [5.0] * 3, "conditions": {"cell_type": ["T cell"] * 2}}, "the depths are 3, but 2 cells"),
        ({"n_cells": 2, "depth": 0}, "depth is 0"),
        ({"n_cells": 2, "depth": -5.0}, "depth is -5"),
        ({"n_cells": 2, "depth": float("nan")}, "depth is nan"),
        ({"n_cells": 2, "depth": float("inf")}, "depth is inf"),
        ({"n_cells": 2, "depth": [5.0, 0.5]}, "depth is 0.5"),
        ({"n_cells": 2, "depth": np.array(["deep", "deeper"])}, "give a number of UMI"),
        ({"n_cells": 1, "genes": ["GENE1", "GENE1x"]}, "unknown gene 'GENE1x'; did you mean 'GENE1"),
        ({"n_cells": 1, "genes": []}, "list of genes is empty"),
        ({"n_cells": 1, "genes": ["GENE3", "GENE4", "GENE3"]}, "gene 'GENE3' is listed more than once"),
        ({"n_cells": 1, "guidance": 2.0}, "nothing to guide by"),
        ({"n_cells": 1, "guidance": -1.0}, "finite number of at least 0, got -1"),
        ({"n_cells": 1, "guidance": {"batch": 2.0}}, "guidance is set for 'batch', but no value of 'batch'"),
        ({"n_cells": 1, "guidance": {"bach": 2.0}}, "unknown attribute 'bach'; did you mean 'batch'"),
    ],
)
def test_impossible_requests_are_refused_by_name(schema, options, message):
    with pytest.raises(UserError, match=message):
        build(schema, **options)


def test_an_attribute_that_some_cells_lack_is_left_to_the_model_there(schema):
    with pytest.warns(UserWarning, match="'cell_type' is missing for 1 of 3 cells; there the model chooses it"):
        request = build(schema, conditions={"cell_type": ["T cell", None, "T cell"], "age": [1.0, 2.0, 3.0]})
    known = schema.categorical[schema.categorical_names.index("cell_type")].categories.index("T cell")
    assert request.categorical[:, schema.categorical_names.index("cell_type")].tolist() == [known, -1, known]
    assert request.requested_obs(schema)["cell_type"].isna().tolist() == [False, True, False]
    with pytest.warns(UserWarning, match="'age' is missing for 1 of 2 cells"):
        request = build(schema, conditions={"age": [1.0, np.nan]})
    assert np.isnan(request.continuous).tolist() == [[False], [True]]


@pytest.mark.parametrize(
    ("value", "n_cells"),
    [
        (np.array("T cell"), 2),
        (iter(["T cell", "T cell"]), None),
        ((label for label in ["T cell", "T cell"]), None),
        (pd.Categorical(["T cell", "T cell"]), None),
        (pd.Series(["T cell", "T cell"], index=["a", "b"]), None),
        (b"T cell", 2),
    ],
    ids=["array of no dimension", "iterator", "generator", "categorical", "series with names", "bytes"],
)
def test_a_condition_may_be_anything_that_has_one_value_or_one_per_cell(schema, value, n_cells):
    plain = build(schema, conditions={"cell_type": ["T cell", "T cell"]})
    assert np.array_equal(build(schema, n_cells, conditions={"cell_type": value}).categorical, plain.categorical)


@pytest.mark.parametrize("depth", [[50, 60], (50.0, 60.0), iter([50, 60]), np.array([50, 60]), pd.Series([50, 60])])
def test_depths_may_be_anything_that_has_one_per_cell(schema, depth):
    assert build(schema, depth=depth).depth.tolist() == [50.0, 60.0]

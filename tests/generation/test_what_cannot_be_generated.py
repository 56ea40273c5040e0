"""Requests that lead to no cells are refused, and what is done otherwise than asked for is said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from scldm.errors import UserError
from scldm.generation.request import GenerationRequest
from scldm.prior.guidance import Guidance

CELL = {"cell_type": "T cell"}
BOTH = {"cell_type": "T cell", "batch": "one"}


@pytest.mark.parametrize("scale", [1e30, 1e10, 1e38])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_guidance_that_leads_beyond_all_bounds_is_refused(trained, scale, solver):
    with pytest.raises(UserError, match=r"guidance .* and 5 steps of .* grow beyond all bounds"):
        trained.sample(4, conditions=CELL, guidance=scale, steps=5, solver=solver)


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"conditions": {"age": 1e30}}, r"bounds; ask for numbers of age that are nearer"),
        ({"conditions": {"age": 1e30}, "guidance": 2.0}, r"bounds; lower the guidance, or ask for numbers of age"),
        ({"conditions": {"cell_type": "T cell"}, "guidance": 1e30}, r"bounds; lower the guidance\.$"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_advice_is_about_what_was_asked_for(trained, asked, advice):
    with pytest.raises(UserError, match=advice):
        trained.sample(4, **asked, steps=5)


@pytest.mark.parametrize("part", ["prior", "decoder"])
def test_weights_that_are_not_finite_give_no_cells(trained, part, monkeypatch):
    weight = trained.trained.prior.latent_output.bias if part == "prior" else trained.trained.vae.decoder.bias
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0] = float("nan")
        with pytest.raises(UserError, match=r"beyond all bounds|not finite"):
            trained.sample(4, conditions=CELL, steps=2)
    finally:
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize(
    ("guidance", "conditions"),
    [
        (Guidance.additive(2.0), BOTH),
        ({"cell_type": 2.0}, BOTH),
        (0.3, CELL),
        (3.5, CELL),
        (0.0, CELL),
        (1.0, CELL),
        (2.0, BOTH),
        (Guidance.additive(2.0), CELL),
    ],
)
def test_a_solver_is_used_for_fields_that_it_was_fitted_to(trained, guidance, conditions):
    fitted = guidance in (0.0, 1.0, 2.0) or (conditions is CELL and isinstance(guidance, Guidance))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        request = GenerationRequest.build(
            trained.schema, 3, conditions=conditions, guidance=guidance, solver="few_step"
        )
    assert (request.solver, request.steps) == (("few_step", 4) if fitted else ("heun", 25))
    assert [("heun are taken instead" in str(w.message)) for w in said] == [True] * (not fitted)


@pytest.mark.parametrize("name", ["n_cells", "steps", "seed"])
@pytest.mark.parametrize("value", [1.5, "3", True, np.float32(2), np.nan, [3], {}, b"3", 2 + 0j])
def test_whole_numbers_are_whole_numbers(trained, name, value):
    options = {"n_cells": 3, "steps": 1, "seed": 0} | {name: value}
    with pytest.raises(UserError, match=f"{name} is .*; it must be a whole number"):
        GenerationRequest.build(trained.schema, **options)


@pytest.mark.parametrize("value", [np.int8(3), np.uint64(3), np.array(3), 3])
def test_whole_numbers_of_any_type_are_taken(trained, value):
    request = GenerationRequest.build(trained.schema, value, steps=value, seed=value)
    assert (request.n_cells, request.steps, request.seed) == (3, 3, 3)
    assert type(request.seed) is int


@pytest.mark.parametrize(
    "value", ["much", None, [2.0], True, 1j, {"cell_type": "much"}, {"cell_type": None}, 10**400, 1e300, np.inf, -1.0]
)
def test_guidance_that_is_no_number_is_refused(trained, value):
    with pytest.raises(UserError, match="guidance"):
        GenerationRequest.build(trained.schema, 3, conditions=CELL, guidance=value)

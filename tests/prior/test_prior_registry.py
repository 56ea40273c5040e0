from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest

from scldm.errors import UserError
from scldm.generation.request import GenerationRequest
from scldm.prior.registry import SOLVERS, TIME_SAMPLERS, NamedFunction, Solver, SolverName, TimeDistribution


def test_choices_are_what_is_registered():
    assert get_args(SolverName) == tuple(SOLVERS)
    assert get_args(TimeDistribution) == tuple(TIME_SAMPLERS)


def test_names_are_known_without_torch():
    # A package without its initialiser: what that one imports is another matter.
    program = (
        "import types, sys; package = types.ModuleType('scldm'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['scldm'] = package; import scldm.prior.registry as registry, scldm.prior.config; "
        "assert registry.SOLVERS and 'torch' not in sys.modules, 'torch is loaded'"
    )
    folder = sys.modules["scldm"].__path__[0]
    result = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_new_solver_is_one_function_and_one_line(trained, monkeypatch):
    """Registered, it can be asked for by its name and takes its own number of steps."""
    with pytest.raises(UserError, match="unknown solver 'standing'"):
        GenerationRequest.build(trained.schema, 3, solver="standing")
    entry = Solver(NamedFunction(f"{__name__}:standing"), evaluations_per_step=0, order=None, default_steps=1)
    monkeypatch.setitem(SOLVERS, "standing", entry)
    assert GenerationRequest.build(trained.schema, 3, solver="standing").steps == 1
    first, again = (trained.sample(3, solver="standing", seed=seed).obsm["X_scldm"] for seed in (0, 0))
    assert (first == again).all()


def standing(velocity, state, times):
    """Leave every cell at its noise."""
    return state


def test_a_fitted_solver_comes_from_a_model():
    assert [name for name, solver in SOLVERS.items() if solver.fitted] == ["few_step"]
    with pytest.raises(TypeError, match="take it from the model"):
        SOLVERS["few_step"](standing, None, (0.0, 1.0))

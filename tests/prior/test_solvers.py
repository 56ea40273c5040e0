from __future__ import annotations

import math
import sys

import pytest
import torch

from scldm.errors import UserError
from scldm.prior.solvers import SOLVERS, check_solver, dopri5, euler, heun, midpoint, time_grid

FIXED = ["euler", "midpoint", "heun"]


def swinging(state, time):
    """dx/dt = x cos(5 t), whose solution is x(0) exp(sin(5 t) / 5)."""
    return state * math.cos(5 * time)


START = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
EXACT = START * math.exp(math.sin(5.0) / 5)


def error(name, n_steps):
    return (SOLVERS[name](swinging, START, time_grid(n_steps)) - EXACT).abs().max().item()


@pytest.mark.parametrize("name", FIXED)
def test_order_of_convergence(name):
    coarse, fine = error(name, 200), error(name, 400)
    assert math.log2(coarse / fine) == pytest.approx(SOLVERS[name].order, abs=0.1)


@pytest.mark.parametrize("name", FIXED)
def test_constant_velocity_is_exact_in_one_step(name):
    end = SOLVERS[name](lambda x, t: torch.full_like(x, 3.0), START, (0.0, 1.0))
    torch.testing.assert_close(end, START + 3)


@pytest.mark.parametrize("solver", [midpoint, heun])
def test_second_order_is_exact_for_a_velocity_linear_in_time(solver):
    end = solver(lambda x, t: torch.full_like(x, 2 * t), START, (0.0, 0.3, 1.0))
    torch.testing.assert_close(end, START + 1)


def test_single_steps_are_their_equations():
    x, h = torch.tensor([[2.0]]), 0.5
    doubled = lambda x, t: x * (1 + t)  # noqa: E731
    assert euler(doubled, x, (0.0, h)).item() == pytest.approx(2 + h * 2)
    assert midpoint(doubled, x, (0.0, h)).item() == pytest.approx(2 + h * (2 + h / 2 * 2) * (1 + h / 2))
    assert heun(doubled, x, (0.0, h)).item() == pytest.approx(2 + h / 2 * (2 + (2 + h * 2) * (1 + h)))


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("n_steps", [1, 7])
def test_cost_is_what_the_registry_says(name, n_steps):
    times_asked = []

    def counting(state, time):
        assert isinstance(time, float)
        times_asked.append(time)
        return state

    SOLVERS[name](counting, START, time_grid(n_steps))
    assert len(times_asked) == n_steps * SOLVERS[name].evaluations_per_step
    assert min(times_asked) == 0
    assert max(times_asked) <= 1


@pytest.mark.parametrize("name", FIXED)
def test_start_is_left_alone_and_callback_sees_every_step(name):
    before, seen = START.clone(), []
    end = SOLVERS[name](swinging, START, (0.0, 0.25, 1.0), lambda n, time, state: seen.append((n, time, state)))
    assert torch.equal(START, before)
    assert [(n, time) for n, time, _ in seen] == [(1, 0.25), (2, 1.0)]
    assert torch.equal(seen[-1][2], end)


def test_time_grid():
    assert time_grid(4) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert time_grid(3)[-1] == 1.0
    with pytest.raises(UserError, match="at least 1, got 0"):
        time_grid(0)


@pytest.mark.parametrize("times", [(0.0,), (0.0, 0.0), (1.0, 0.0)])
def test_times_must_increase(times):
    with pytest.raises(ValueError, match="increase"):
        euler(swinging, START, times)


def test_unknown_solver_names_the_nearest():
    for name in (*SOLVERS, "few_step"):
        check_solver(name)
    with pytest.raises(UserError, match="unknown solver 'huen'; did you mean 'heun'"):
        check_solver("huen")


def test_adaptive_solver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(UserError, match=r"pip install 'scldm\[ode\]', or choose 'heun'"):
        dopri5(swinging, START, (0.0, 1.0))


def test_adaptive_solver_is_accurate():
    pytest.importorskip("torchdiffeq")
    assert error("dopri5", 1) < 1e-4

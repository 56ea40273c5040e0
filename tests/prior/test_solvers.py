from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from scldm.errors import UserError
from scldm.prior import solvers
from scldm.prior.registry import SOLVERS, find_solver
from scldm.prior.solvers import dopri5, euler, heun, midpoint, time_grid

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
def test_start_is_left_alone(name):
    before = START.clone()
    end = SOLVERS[name](swinging, START, (0.0, 0.25, 1.0))
    assert torch.equal(START, before)
    assert not torch.equal(START, end)


def falling(state, time):
    """dx/dt = -(1 + t) x^2, whose solution is x(0) / (1 + x(0) (t + t^2 / 2))."""
    return -(1 + time) * state.square()


AT_NOISE = torch.tensor([[0.5, 2.0]], dtype=torch.float64)
AT_DATA = AT_NOISE / (1 + 1.5 * AT_NOISE)


def order_of(error_at) -> float:
    """Rate at which an error shrinks with the length of a step."""
    return math.log2(error_at(200) / error_at(400))


@pytest.mark.parametrize("name", FIXED)
def test_order_of_convergence_from_data_to_noise(name):
    def error_at(n_steps):
        back = SOLVERS[name](falling, AT_DATA, time_grid(n_steps)[::-1])
        return (back - AT_NOISE).abs().max().item()

    assert error_at(400) < 0.05
    assert order_of(error_at) == pytest.approx(SOLVERS[name].order, abs=0.1)


# Of an even order, the leading errors of a step and of the step back cancel.
@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 3), ("heun", 3)])
def test_there_and_back_returns_to_the_start(name, order):
    def error_at(n_steps):
        there = SOLVERS[name](falling, AT_NOISE, time_grid(n_steps))
        torch.testing.assert_close(there, AT_DATA, rtol=0.02, atol=0)
        back = SOLVERS[name](falling, there, time_grid(n_steps)[::-1])
        return (back - AT_NOISE).abs().max().item()

    assert order >= SOLVERS[name].order
    assert order_of(error_at) == pytest.approx(order, abs=0.1)


def test_time_grid():
    assert time_grid(4) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert time_grid(3)[-1] == 1.0
    with pytest.raises(UserError, match="at least 1, got 0"):
        time_grid(0)


@pytest.mark.parametrize("times", [(0.0,), (0.0, 0.0), (0.0, 1.0, 0.5), (1.0, 0.0, 0.0)])
def test_times_must_increase_or_decrease(times):
    with pytest.raises(ValueError, match="increase or decrease"):
        euler(swinging, START, times)


def test_unknown_solver_names_the_nearest():
    for name in SOLVERS:
        assert find_solver(name) is SOLVERS[name]
    with pytest.raises(UserError, match="unknown solver 'huen'; did you mean 'heun'"):
        find_solver("huen")


def test_adaptive_solver_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(UserError, match=r"pip install torchdiffeq, or choose 'heun'"):
        dopri5(swinging, START, (0.0, 1.0))


def test_adaptive_solver_is_accurate():
    pytest.importorskip("torchdiffeq")
    assert error("dopri5", 1) < 1e-4


def never_ending(velocity, state, times, **options):
    """Stand for an adaptive solver whose steps get shorter and shorter."""
    while True:
        velocity(times[0], state)


def of_no_length(velocity, state, times, **options):
    """Stand for an adaptive solver whose step has become too short for a number."""
    raise AssertionError("underflow in dt 0.0")


@pytest.mark.parametrize("odeint", [never_ending, of_no_length])
def test_adaptive_solver_ends_where_the_velocity_is_too_steep(odeint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", SimpleNamespace(odeint=odeint))
    evaluations = []

    def velocity(state, time):
        evaluations.append(time)
        return state

    with pytest.raises(UserError, match=r"does not arrive within 2000 evaluations.*lower the guidance"):
        dopri5(velocity, START, (0.0, 1.0))
    assert len(evaluations) <= solvers.MOST_EVALUATIONS


@pytest.mark.parametrize("factor", [1e5, 1e30, float("nan")])
def test_adaptive_solver_of_torchdiffeq_ends_where_the_velocity_is_too_steep(factor):
    pytest.importorskip("torchdiffeq")
    with pytest.raises(UserError, match="does not arrive"):
        dopri5(lambda state, time: factor * state, START, (0.0, 1.0))

"""Fixed-step solvers of dx/dt = v(x, t) as plain functions, so that the cost of a cell is a number the user picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from scldm.errors import UserError, nearest_names

__all__ = [
    "FEW_STEP",
    "SOLVERS",
    "Callback",
    "Solver",
    "Velocity",
    "check_solver",
    "default_steps",
    "dopri5",
    "euler",
    "heun",
    "midpoint",
    "time_grid",
]

Velocity = Callable[[Tensor, float], Tensor]
"""Velocity of a state at a time: (state [cells, state], time) -> [cells, state]."""

Callback = Callable[[int, float, Tensor], None]
"""Called after every step with the number of finished steps, the time reached and the state there."""


def time_grid(n_steps: int) -> tuple[float, ...]:
    """``n_steps + 1`` evenly spaced times from 0 (noise) to 1 (data)."""
    if n_steps < 1:
        raise UserError(f"the number of solver steps must be at least 1, got {n_steps}")
    return tuple(step / n_steps for step in range(n_steps + 1))


def _integrate(
    step: Callable[[Tensor, float, float], Tensor], state: Tensor, times: Sequence[float], callback: Callback | None
) -> Tensor:
    if len(times) < 2 or any(end <= start for start, end in pairwise(times)):
        raise ValueError(f"times must be two or more and increase, got {list(times)}")
    for n_done, (start, end) in enumerate(pairwise(times), start=1):
        state = step(state, start, end)
        if callback is not None:
            callback(n_done, end, state)
    return state


def euler(velocity: Velocity, state: Tensor, times: Sequence[float], callback: Callback | None = None) -> Tensor:
    """First order, one evaluation per step: x + h v(x, t).

    Parameters
    ----------
    velocity
        Right-hand side; called with the state and the time as a Python number.
    state
        Start, at ``times[0]``, [cells, state]; it is not changed.
    times
        Increasing; one step between neighbours.
    callback
        See :data:`Callback`.

    Returns
    -------
    State at ``times[-1]``, [cells, state].
    """

    def step(x: Tensor, start: float, end: float) -> Tensor:
        return torch.add(x, velocity(x, start), alpha=end - start)

    return _integrate(step, state, times, callback)


def midpoint(velocity: Velocity, state: Tensor, times: Sequence[float], callback: Callback | None = None) -> Tensor:
    """Second order, two evaluations per step: x + h v(x + h/2 v(x, t), t + h/2). Parameters as in :func:`euler`."""

    def step(x: Tensor, start: float, end: float) -> Tensor:
        half = (end - start) / 2
        middle = torch.add(x, velocity(x, start), alpha=half)
        return torch.add(x, velocity(middle, start + half), alpha=end - start)

    return _integrate(step, state, times, callback)


def heun(velocity: Velocity, state: Tensor, times: Sequence[float], callback: Callback | None = None) -> Tensor:
    """Second order, two evaluations per step: the mean of the slopes at both ends. Parameters as in :func:`euler`."""

    def step(x: Tensor, start: float, end: float) -> Tensor:
        slope = velocity(x, start)
        predicted = torch.add(x, slope, alpha=end - start)
        return torch.add(x, slope + velocity(predicted, end), alpha=(end - start) / 2)

    return _integrate(step, state, times, callback)


def dopri5(
    velocity: Velocity,
    state: Tensor,
    times: Sequence[float],
    callback: Callback | None = None,
    *,
    tolerance: float = 1e-5,
) -> Tensor:
    """Adaptive Dormand-Prince of order 5, from torchdiffeq; the number of evaluations is up to the solver.

    Step sizes are chosen for all cells of a call together, so a cell depends (within the tolerance) on its chunk mates.

    Parameters
    ----------
    velocity, state
        As in :func:`euler`.
    times
        Increasing; only the first and the last matter, since the solver picks the steps in between.
    callback
        Called once, at the end.
    tolerance
        Both relative and absolute.

    Raises
    ------
    UserError
        When torchdiffeq is not installed.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise UserError(
            "the solver 'dopri5' needs torchdiffeq: pip install 'scldm[ode]', or choose 'heun', 'midpoint' or 'euler'"
        ) from error

    def step(x: Tensor, start: float, end: float) -> Tensor:
        # float32 grid: Apple's MPS has no float64.
        grid = torch.tensor([start, end], device=x.device, dtype=x.dtype)
        path = odeint(lambda t, y: velocity(y, float(t)), x, grid, rtol=tolerance, atol=tolerance, method="dopri5")
        return path[-1]

    return _integrate(step, state, (times[0], times[-1]), callback)


@dataclass(frozen=True)
class Solver:
    """A solver with what it costs; call it like the function.

    Attributes
    ----------
    name
        As on the command line.
    integrate
        The function.
    evaluations_per_step
        Velocity evaluations in a step; None when the solver decides.
    order
        Order of convergence: the error shrinks as (step size) ** order.
    """

    name: str
    integrate: Callable[..., Tensor]
    evaluations_per_step: int | None
    order: int

    def __call__(
        self, velocity: Velocity, state: Tensor, times: Sequence[float], callback: Callback | None = None
    ) -> Tensor:
        """Integrate; parameters as in :func:`euler`."""
        return self.integrate(velocity, state, times, callback)


SOLVERS: dict[str, Solver] = {
    solver.name: solver
    for solver in (
        Solver("euler", euler, evaluations_per_step=1, order=1),
        Solver("midpoint", midpoint, evaluations_per_step=2, order=2),
        Solver("heun", heun, evaluations_per_step=2, order=2),
        Solver("dopri5", dopri5, evaluations_per_step=None, order=5),
    )
}


FEW_STEP = "few_step"
"""Name of the solvers that are fitted to a model (:mod:`scldm.prior.few_step`); their steps are evaluations."""


def check_solver(name: str) -> None:
    """Raise a :class:`~scldm.errors.UserError` for a solver that does not exist."""
    if name not in SOLVERS and name != FEW_STEP:
        raise UserError(f"unknown solver '{name}'; {nearest_names(name, (*SOLVERS, FEW_STEP))}")


def default_steps(name: str) -> int:
    """Return the steps of a solver where none are asked for."""
    return 4 if name == FEW_STEP else 25

"""Solvers of dx/dt = v(x, t) as plain functions: with fixed steps, the user picks what a cell costs.

:data:`scldm.prior.registry.SOLVERS` names them. They go either way along a path, from noise to cells or back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from scldm.errors import UserError

__all__ = ["Velocity", "dopri5", "euler", "heun", "midpoint", "time_grid"]

Velocity = Callable[[Tensor, float], Tensor]
"""Velocity of a state at a time: (state [cells, state], time) -> [cells, state]."""


#: Relative and absolute, of the adaptive solver.
TOLERANCE = 1e-5
#: Of the adaptive solver. The fields of trained priors need two to four hundred, up to a guidance of 10; the steps in a
#: field that grows without bounds get shorter and shorter, and there would be no end.
MOST_EVALUATIONS = 2000


def time_grid(n_steps: int) -> tuple[float, ...]:
    """Return ``n_steps + 1`` evenly spaced times from 0 (noise) to 1 (data); reverse them to go from data to noise."""
    if n_steps < 1:
        raise UserError(f"the number of solver steps must be at least 1, got {n_steps}")
    return tuple(step / n_steps for step in range(n_steps + 1))


def _integrate(step: Callable[[Tensor, float, float], Tensor], state: Tensor, times: Sequence[float]) -> Tensor:
    lengths = [end - start for start, end in pairwise(times)]
    if not lengths or not (all(length > 0 for length in lengths) or all(length < 0 for length in lengths)):
        raise ValueError(f"times must be two or more and either increase or decrease throughout, got {list(times)}")
    for start, end in pairwise(times):
        state = step(state, start, end)
    return state


def euler(velocity: Velocity, state: Tensor, times: Sequence[float]) -> Tensor:
    """Integrate at first order, with one evaluation per step: x + h v(x, t).

    Parameters
    ----------
    velocity
        Right-hand side; called with the state and the time as a Python number.
    state
        Start, at ``times[0]``, [cells, state]; it is not changed.
    times
        Increasing or decreasing; one step between neighbours.

    Returns
    -------
    State at ``times[-1]``, [cells, state].
    """

    def step(x: Tensor, start: float, end: float) -> Tensor:
        return torch.add(x, velocity(x, start), alpha=end - start)

    return _integrate(step, state, times)


def midpoint(velocity: Velocity, state: Tensor, times: Sequence[float]) -> Tensor:
    """Integrate at second order with two evaluations per step: x + h v(x + h/2 v(x, t), t + h/2).

    Parameters and result are those of :func:`euler`.
    """

    def step(x: Tensor, start: float, end: float) -> Tensor:
        half = (end - start) / 2
        middle = torch.add(x, velocity(x, start), alpha=half)
        return torch.add(x, velocity(middle, start + half), alpha=end - start)

    return _integrate(step, state, times)


def heun(velocity: Velocity, state: Tensor, times: Sequence[float]) -> Tensor:
    """Integrate at second order with two evaluations per step, along the mean of the slopes at both ends.

    Parameters and result are those of :func:`euler`.
    """

    def step(x: Tensor, start: float, end: float) -> Tensor:
        slope = velocity(x, start)
        predicted = torch.add(x, slope, alpha=end - start)
        return torch.add(x, slope + velocity(predicted, end), alpha=(end - start) / 2)

    return _integrate(step, state, times)


def dopri5(velocity: Velocity, state: Tensor, times: Sequence[float]) -> Tensor:
    """Integrate with the adaptive Dormand-Prince solver of order 5, from torchdiffeq, which picks its own steps.

    Step sizes are chosen for all cells of a call together, so a cell depends (within the tolerance) on its chunk mates.

    Parameters
    ----------
    velocity, state
        As in :func:`euler`.
    times
        Only the first and the last matter.

    Raises
    ------
    UserError
        When torchdiffeq is not installed, or the velocity is too steep: it needs more than :data:`MOST_EVALUATIONS`, or
        is no number any more.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise UserError(
            "the solver 'dopri5' needs torchdiffeq: pip install torchdiffeq, or choose 'heun', 'midpoint' or 'euler'"
        ) from error

    too_steep = UserError(
        f"the adaptive solver 'dopri5' does not arrive within {MOST_EVALUATIONS} evaluations, because the velocity is "
        "too steep; lower the guidance, or choose 'heun'."
    )
    evaluations = 0

    def slope(time: Tensor, x: Tensor) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        if evaluations > MOST_EVALUATIONS:
            raise too_steep
        return velocity(x, float(time))

    def step(x: Tensor, start: float, end: float) -> Tensor:
        # float32 grid: Apple's MPS has no float64.
        grid = torch.tensor([start, end], device=x.device, dtype=x.dtype)
        try:
            return odeint(slope, x, grid, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[-1]
        except AssertionError as error:
            # How torchdiffeq says that a step has become too short, or a state is not finite.
            raise too_steep from error

    return _integrate(step, state, (times[0], times[-1]))

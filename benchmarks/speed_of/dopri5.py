"""The adaptive solver of the published code, written out: it counts its evaluations, and torchdiffeq, which the product
calls for its own ``dopri5``, need not be installed to measure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scldm.prior.solvers import Velocity

#: Dormand and Prince 1980: times, stages, weights of order 5, and what is to be subtracted for order 4.
_TIMES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERRORS = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def dopri5(velocity: Velocity, state: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, int]:
    """Integrate from 0 to 1 with one step size for all cells, as torchdiffeq does; also say in how many evaluations."""

    def norm(x: Tensor) -> float:
        return float(x.square().mean().sqrt())

    # First step: Hairer, Norsett and Wanner, Solving ODEs I, section II.4.
    slope = velocity(state, 0.0)
    scale = tolerance + tolerance * state.abs()
    size, speed = norm(state / scale), norm(slope / scale)
    guess = 1e-6 if size < 1e-5 or speed < 1e-5 else 0.01 * size / speed
    bend = norm((velocity(state + guess * slope, guess) - slope) / scale) / guess
    step = max(1e-6, guess * 1e-3) if max(speed, bend) <= 1e-15 else (0.01 / max(speed, bend)) ** (1 / 5)
    step, at, evaluations = min(100 * guess, step), 0.0, 2
    while at < 1.0:
        step = min(step, 1.0 - at)
        slopes, point = [slope], state
        for share, weights in zip(_TIMES[1:], _STAGES[1:], strict=True):
            point = state + step * sum(w * s for w, s in zip(weights, slopes, strict=True) if w)
            slopes.append(velocity(point, at + share * step))
        evaluations += 6
        error = step * sum(w * s for w, s in zip(_ERRORS, slopes, strict=True) if w)
        ratio = norm(error / (tolerance + tolerance * torch.maximum(state.abs(), point.abs())))
        if ratio <= 1.0:
            # The last stage is the first of the next step.
            at, state, slope = at + step, point, slopes[-1]
            if 1.0 - at < 1e-9:
                break
        grow = 10.0 if ratio == 0.0 else 0.9 * ratio ** (-1 / 5)
        step *= min(10.0, max(1.0 if ratio <= 1.0 else 0.2, grow))
    return state, evaluations

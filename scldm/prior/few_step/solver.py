"""The solver itself: its coefficients, and how it is applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scldm.prior.solvers import Velocity

__all__ = ["KINDS", "FewStepSolver", "FewStepSolvers", "integrate"]

#: Kinds of fields that solvers are fitted to: one velocity, or several that guidance adds up.
KINDS = ("plain", "guided")


@dataclass(frozen=True, eq=False)
class FewStepSolver:
    """Explicit solver of dx/dt = v(x, t) from t = 0 to 1 with free coefficients (Shaul et al., 2024, arXiv 2403.01329).

    With ``v_j = v(x_j, times[j])``, where ``x_0`` is the start, ``x_{i+1} = x_0 + sum_{j <= i} weights[i, j] v_j``.
    Midpoint, Heun, Runge-Kutta and multistep solvers are special cases. Where ``x`` is the last of these points, the
    result is ``x + x @ matrix + offset``. Numbers whose velocity is 0, such as a known depth, stay exactly as they are.

    Attributes
    ----------
    times
        When the velocity is evaluated; the first is 0, [evaluations].
    weights
        Lower triangular, [evaluations, evaluations].
    matrix, offset
        Correction of the end points, [state, state] and [state]; None for none.
    """

    times: Float[Tensor, " evaluations"]
    weights: Float[Tensor, "evaluations evaluations"]
    matrix: Float[Tensor, "state state"] | None = None
    offset: Float[Tensor, " state"] | None = None
    #: Times and weights as plain numbers, so that solving is one graph to a compiler.
    _numbers: tuple[list[float], list[list[float]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", (self.times.tolist(), self.weights.tolist()))

    @property
    def evaluations(self) -> int:
        """Velocity evaluations per cell."""
        return len(self.times)

    @classmethod
    def midpoint(cls, evaluations: int) -> FewStepSolver:
        """Return equal midpoint steps, with one Euler step at the end where the number of evaluations is odd."""
        times = torch.arange(evaluations) / evaluations
        weights = torch.zeros(evaluations, evaluations)
        for i in range(evaluations):
            # The second evaluation of every finished midpoint step carries the length of both.
            weights[i, 1 : i - i % 2 : 2] = 2 / evaluations
            weights[i, i] = (1 + i % 2) / evaluations
        return cls(times, weights)

    def __call__(self, velocity: Velocity, state: Float[Tensor, "cells state"]) -> Float[Tensor, "cells state"]:
        """Integrate from 0 to 1."""
        end = integrate(velocity, state, *self._numbers)
        if self.matrix is None or self.offset is None:
            return end
        return torch.where(end == state, state, end + (end @ self.matrix + self.offset).to(end.dtype))

    def to(self, device: torch.device | str) -> FewStepSolver:
        """Return the solver for states on another device."""
        if self.matrix is None or self.offset is None:
            return self
        return replace(self, matrix=self.matrix.to(device), offset=self.offset.to(device))


FewStepSolvers = Mapping[tuple[int, str], FewStepSolver]
"""Solvers of a model by their number of evaluations and the kind of their field (:data:`KINDS`)."""


def integrate(
    velocity: Callable[[Tensor, Any], Tensor],
    start: Float[Tensor, "cells state"],
    times: Sequence[Any],
    weights: Sequence[Sequence[float]] | Tensor,
) -> Float[Tensor, "cells state"]:
    """Apply coefficients, without a correction.

    Parameters
    ----------
    velocity
        Called with a state and one of ``times``.
    start
        States at 0.
    times, weights
        See :class:`FewStepSolver`; as tensors, the result has gradients with respect to them.
    """
    slopes: list[Tensor] = []
    point = start
    for i, time in enumerate(times):
        slopes.append(velocity(point, time))
        point = start
        for j, slope in enumerate(slopes):
            point = point + weights[i][j] * slope
    return point

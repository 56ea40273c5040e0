"""What can be chosen by name in the prior: its solvers, and the distributions of its training times.

A function is written as ``"module:function"`` and imported when it is first called, so that the names can be listed
without loading torch.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scldm.errors import UserError, nearest_names

__all__ = [
    "SOLVERS",
    "TIME_SAMPLERS",
    "NamedFunction",
    "Solver",
    "SolverName",
    "TimeDistribution",
    "find_solver",
]


@dataclass(frozen=True)
class NamedFunction:
    """A function that is imported when it is called.

    Attributes
    ----------
    reference
        ``"module:function"``.
    """

    reference: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        return pkgutil.resolve_name(self.reference)(*arguments, **options)


@dataclass(frozen=True)
class Solver:
    """A solver of dx/dt = v(x, t) and what it costs; call it as :func:`scldm.prior.solvers.euler` is called.

    Attributes
    ----------
    function
        What integrates; None for a solver whose coefficients are fitted to every model. Such solvers are held by the
        model, one for every number of steps and kind of field.
    evaluations_per_step
        Velocity evaluations in a step; None when the solver decides.
    order
        Order of convergence: the error shrinks as (step size) ** order. None for a fitted solver.
    default_steps
        Steps where none are asked for.
    """

    function: NamedFunction | None
    evaluations_per_step: int | None
    order: int | None
    default_steps: int = 25

    @property
    def fitted(self) -> bool:
        """Whether the coefficients belong to a model."""
        return self.function is None

    def __call__(self, velocity: Callable[..., Any], state: Any, times: Sequence[float]) -> Any:
        """Integrate from the first time to the last."""
        if self.function is None:
            raise TypeError("this solver is fitted to every model; take it from the model")
        return self.function(velocity, state, times)


SOLVERS: dict[str, Solver] = {
    "euler": Solver(NamedFunction("scldm.prior.solvers:euler"), evaluations_per_step=1, order=1),
    "midpoint": Solver(NamedFunction("scldm.prior.solvers:midpoint"), evaluations_per_step=2, order=2),
    "heun": Solver(NamedFunction("scldm.prior.solvers:heun"), evaluations_per_step=2, order=2),
    "dopri5": Solver(NamedFunction("scldm.prior.solvers:dopri5"), evaluations_per_step=None, order=5),
    "few_step": Solver(None, evaluations_per_step=1, order=None, default_steps=4),
}
"""Solvers by their names on the command line."""

TIME_SAMPLERS: dict[str, NamedFunction] = {
    "uniform": NamedFunction("scldm.prior.times:uniform_times"),
    "logit_normal": NamedFunction("scldm.prior.times:logit_normal_times"),
}
"""Distributions of the training times by their names in the configuration: ``(n_cells, rng) -> times``."""

if TYPE_CHECKING:
    SolverName = str
    TimeDistribution = str
else:
    SolverName = Literal[tuple(SOLVERS)]
    TimeDistribution = Literal[tuple(TIME_SAMPLERS)]


def find_solver(name: str) -> Solver:
    """Return the solver of a name.

    Raises
    ------
    UserError
        If there is none.
    """
    if not isinstance(name, str) or name not in SOLVERS:
        raise UserError(f"unknown solver '{name}'; {nearest_names(name, SOLVERS)}")
    return SOLVERS[name]

"""A solver of a handful of evaluations, fitted to the one field that it has to integrate.

A general-purpose solver spends evaluations on being right for every field. Its coefficients can be chosen for the field
of a trained prior instead: some ten numbers, by least squares against the end points of a fine solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scldm.config import PriorConfig
from scldm.data.batch import hide_attributes
from scldm.nn.objective import step_generator
from scldm.prior.dit import DiT
from scldm.prior.latents import LatentStore
from scldm.prior.solvers import Velocity, heun, time_grid

__all__ = ["FewStepSolver", "FewStepSolvers", "Field", "collect_few_step", "fit_few_step", "fit_to_prior"]

#: Cells that the coefficients are fitted to, and steps of the Heun solver that they are compared with.
FIT_CELLS, FINE_STEPS = 128, 25
#: Fields that solvers are fitted to, and the scales of joint guidance of the second.
KINDS, GUIDANCE_SCALES = ("plain", "guided"), (1.0, 1.5, 2.0, 3.0)

Field = Callable[[Tensor, Tensor], Tensor]
"""Velocity of a state [cells, state] at a time that is a tensor without dimensions, so that it has a gradient."""


@dataclass(frozen=True, eq=False)
class FewStepSolver:
    """Explicit solver of dx/dt = v(x, t) from t = 0 to 1 with free coefficients (Shaul et al., 2024, arXiv 2403.01329).

    With ``v_j = v(x_j, times[j])``, where ``x_0`` is the start, ``x_{i+1} = x_0 + sum_{j <= i} weights[i, j] v_j``; the
    last one is the result. Midpoint, Heun, Runge-Kutta and multistep solvers are special cases. What has velocity 0,
    such as a given depth, stays exactly what it is.

    Attributes
    ----------
    times
        Of the evaluations; the first is 0, [evaluations].
    weights
        Lower triangular, [evaluations, evaluations].
    """

    times: Float[Tensor, " evaluations"]
    weights: Float[Tensor, "evaluations evaluations"]
    #: Both as plain numbers, so that solving is one graph to a compiler.
    _numbers: tuple[list[float], list[list[float]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", (self.times.tolist(), self.weights.tolist()))

    @property
    def evaluations(self) -> int:
        """Velocity evaluations per cell."""
        return len(self.times)

    @classmethod
    def midpoint(cls, evaluations: int) -> FewStepSolver:
        """Equal midpoint steps, and one Euler step at the end where the number of evaluations is odd."""
        times = torch.arange(evaluations) / evaluations
        weights = torch.zeros(evaluations, evaluations)
        for i in range(evaluations):
            # The second evaluation of every finished midpoint step carries its two lengths.
            weights[i, 1 : i - i % 2 : 2] = 2 / evaluations
            weights[i, i] = (1 + i % 2) / evaluations
        return cls(times, weights)

    def __call__(self, velocity: Velocity, state: Float[Tensor, "cells state"]) -> Float[Tensor, "cells state"]:
        """Integrate from 0 to 1."""
        return _integrate(velocity, state, *self._numbers)

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """Name the coefficients, to be saved; :func:`collect_few_step` reads them back."""
        prefix = f"few_step.{self.evaluations}.{kind}"
        return {f"{prefix}.times": self.times, f"{prefix}.weights": self.weights}


#: Solvers of a model by their number of evaluations and their field: ``plain``, one velocity, or ``guided``.
FewStepSolvers = Mapping[tuple[int, str], FewStepSolver]


def collect_few_step(tensors: dict[str, Tensor]) -> dict[tuple[int, str], FewStepSolver]:
    """Take all solvers out of saved tensors.

    Raises
    ------
    ValueError
        If the coefficients of one are incomplete, not finite, or of the wrong shape.
    """
    found = {}
    for name in [n for n in tensors if n.startswith("few_step.") and n.endswith(".times")]:
        times, weights = tensors.pop(name), tensors.pop(name.removesuffix("times") + "weights", torch.empty(0))
        evaluations, _, kind = name.removeprefix("few_step.").removesuffix(".times").partition(".")
        belong = times.ndim == 1 and weights.shape == (len(times), len(times)) and evaluations == str(len(times))
        if not (belong and kind in KINDS and times.isfinite().all() and weights.isfinite().all()):
            raise ValueError(f"the coefficients '{name}' do not belong together")
        found[len(times), kind] = FewStepSolver(times, weights)
    return found


def _integrate(
    velocity: Callable[[Tensor, Any], Tensor],
    start: Tensor,
    times: Sequence[Any],
    weights: Sequence[Sequence[float]] | Tensor,
) -> Tensor:
    slopes: list[Tensor] = []
    point = start
    for i, time in enumerate(times):
        slopes.append(velocity(point, time))
        point = start
        for j, slope in enumerate(slopes):
            point = point + weights[i][j] * slope
    return point


def fit_few_step(
    field: Field,
    start: Float[Tensor, "cells state"],
    end: Float[Tensor, "cells state"],
    evaluations: int,
    *,
    iterations: int = 40,
) -> tuple[FewStepSolver, float]:
    """Fit the coefficients by least squares (L-BFGS), from the midpoint solver on.

    Parameters
    ----------
    field
        Velocity, differentiable in state and time.
    start, end
        States at 0, and where a fine solver takes them at 1.
    evaluations
        Velocity evaluations of the solver.
    iterations
        Of L-BFGS; each costs about one pass forth and back over all cells per evaluation.

    Returns
    -------
    The solver, and the root mean square of its differences from ``end``.
    """
    first = FewStepSolver.midpoint(evaluations)
    lower = torch.tril(torch.ones_like(first.weights)).to(start)
    weights = first.weights.to(start).requires_grad_(True)
    # Times stay inside the path, where the network has been trained.
    logits = first.times[1:].to(start).logit().requires_grad_(evaluations > 1)
    parameters = [weights, logits] if evaluations > 1 else [weights]
    optimiser = torch.optim.LBFGS(parameters, max_iter=iterations, history_size=40, line_search_fn="strong_wolfe")
    best = (math.inf, weights.detach().clone(), logits.detach().clone())

    def loss() -> Tensor:
        nonlocal best
        optimiser.zero_grad()
        times = [start.new_zeros(()), *logits.sigmoid().unbind()]
        error = (_integrate(field, start, times, weights * lower) - end).square().mean()
        error.backward()
        if error.item() < best[0]:
            best = (error.item(), weights.detach().clone(), logits.detach().clone())
        return error

    optimiser.step(loss)
    error, weights, logits = best
    times = torch.cat([logits.new_zeros(1), logits.sigmoid()])
    return FewStepSolver(times.cpu(), (weights * lower).cpu()), error**0.5


def fit_to_prior(
    prior: DiT, latents: LatentStore, config: PriorConfig, seed: int
) -> dict[tuple[int, str], FewStepSolver]:
    """Fit solvers for every number in ``config.few_step_evaluations``.

    The ``plain`` field is the one that training knows: attributes and depths of training cells, hidden and given as
    often. The ``guided`` field (of a prior with attributes) is guided jointly, every cell by a scale of its own: guided
    paths bend more, and coefficients for plain ones would be worse there than none.

    Parameters
    ----------
    prior
        Trained.
    latents
        Of the training cells, whose attributes and depths are taken.
    config
        Numbers of evaluations, attribute dropout, share of given depths.
    seed
        Of the noise, of the choice of cells, and of their scales.
    """
    device = next(prior.parameters()).device
    trained = [(p, p.requires_grad) for p in prior.parameters()]
    was_training = prior.training
    prior.eval().requires_grad_(False)
    has_attributes = latents.cells.categorical.shape[1] + latents.cells.continuous.shape[1] > 0
    fitted = {}
    try:
        for kind in KINDS if config.few_step_evaluations and has_attributes else KINDS[:1]:
            generator = step_generator(seed, f"few_step/{kind}", 0, device)
            field, start = _fields(prior, latents, config, generator, guided=kind == "guided")
            with torch.no_grad():
                end = heun(lambda x, t, field=field: field(x, x.new_tensor(t)), start, time_grid(FINE_STEPS))  # type: ignore[misc]
            for n in config.few_step_evaluations:
                fitted[n, kind] = fit_few_step(field, start, end, n)[0]
    finally:
        prior.train(was_training)
        for parameter, needed in trained:
            parameter.requires_grad_(needed)
    return fitted


def _fields(
    prior: DiT, latents: LatentStore, config: PriorConfig, generator: torch.Generator, guided: bool
) -> tuple[Field, Tensor]:
    """Velocity of some training cells, and the noise they start from."""
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    rows = torch.randint(len(latents), (FIT_CELLS,), generator=generator, device=device).cpu().numpy()
    cells = latents[rows].to(device)
    n_attributes = cells.categorical.shape[1] + cells.continuous.shape[1]
    hidden = uniform(FIT_CELLS, n_attributes) < config.attribute_dropout
    categorical, continuous = hide_attributes(cells.categorical, cells.continuous, hidden)
    start = torch.randn(FIT_CELLS, prior.state_size, generator=generator, device=device)
    known = uniform(FIT_CELLS) < config.given_depth_fraction
    start[:, -1] = torch.where(known, cells.depth, start[:, -1])
    if not guided:
        return lambda state, time: prior(state, time.expand(len(state)), categorical, continuous, known), start

    scales = torch.tensor(GUIDANCE_SCALES, device=device)
    scale = scales[torch.randint(len(scales), (FIT_CELLS, 1), generator=generator, device=device)]
    null_categorical, null_continuous = hide_attributes(categorical, continuous)
    both_categorical = torch.cat([categorical, null_categorical])
    both_continuous = torch.cat([continuous, null_continuous])

    def field(state: Tensor, time: Tensor) -> Tensor:
        times = time.expand(2 * len(state))
        velocities = prior(state.repeat(2, 1), times, both_categorical, both_continuous, known.repeat(2))
        conditional, null = velocities.chunk(2)
        return torch.lerp(null, conditional, scale)

    return field, start

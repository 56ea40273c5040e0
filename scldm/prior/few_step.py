"""A solver of a handful of evaluations, fitted to the one field that it has to integrate.

A general-purpose solver spends evaluations on being right for every field. Its coefficients can be chosen for the field
of a trained prior instead: some ten numbers, by least squares against the end points of a fine solver. What is least
squares off varies too little, as every regression does: cells would be too much alike. So a linear map of the end
points follows, the smallest one that gives them the means and covariances of the fine solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from scldm.data.batch import hide_attributes
from scldm.nn.objective import step_generator
from scldm.prior.config import PriorConfig
from scldm.prior.dit import DiT
from scldm.prior.latents import LatentStore
from scldm.prior.solvers import Velocity, heun, time_grid

__all__ = [
    "FewStepSolver",
    "FewStepSolvers",
    "Field",
    "collect_few_step",
    "corrected",
    "fit_few_step",
    "fit_to_prior",
]

#: Cells that the coefficients are fitted to, and steps of the Heun solver that they are compared with.
FIT_CELLS, FINE_STEPS = 64, 25
#: Cells for every number of the state that the linear map is estimated from, and cells that are solved at a time.
CELLS_PER_DIMENSION, CELLS_AT_A_TIME = 8, 512
#: Fields that solvers are fitted to, and the scales of joint guidance of the second.
KINDS, GUIDANCE_SCALES = ("plain", "guided"), (1.0, 1.5, 2.0, 3.0)

#: Fields of a solver, and what its tensors are called.
COEFFICIENTS = ("times", "weights", "matrix", "offset")

Field = Callable[[Tensor, Tensor], Tensor]
"""Velocity of a state [cells, state] at a time that is a tensor without dimensions, so that it has a gradient."""


@dataclass(frozen=True, eq=False)
class FewStepSolver:
    """Explicit solver of dx/dt = v(x, t) from t = 0 to 1 with free coefficients (Shaul et al., 2024, arXiv 2403.01329).

    With ``v_j = v(x_j, times[j])``, where ``x_0`` is the start, ``x_{i+1} = x_0 + sum_{j <= i} weights[i, j] v_j``.
    Midpoint, Heun, Runge-Kutta and multistep solvers are special cases. Of the last one, ``x``, the result is
    ``x + x @ matrix + offset``. What has velocity 0, such as a given depth, stays exactly what it is.

    Attributes
    ----------
    times
        Of the evaluations; the first is 0, [evaluations].
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
        end = _integrate(velocity, state, *self._numbers)
        if self.matrix is None or self.offset is None:
            return end
        return torch.where(end == state, state, end + (end @ self.matrix + self.offset).to(end.dtype))

    def to(self, device: torch.device | str) -> FewStepSolver:
        """Return the solver for states on another device."""
        if self.matrix is None or self.offset is None:
            return self
        return replace(self, matrix=self.matrix.to(device), offset=self.offset.to(device))

    def tensors(self, kind: str) -> dict[str, Tensor]:
        """Name the coefficients, to be saved; :func:`collect_few_step` reads them back."""
        found = {name: getattr(self, name) for name in COEFFICIENTS}
        return {
            f"few_step.{self.evaluations}.{kind}.{name}": t.cpu().contiguous()
            for name, t in found.items()
            if t is not None
        }


#: Solvers of a model by their number of evaluations and their field: ``plain``, one velocity, or ``guided``.
FewStepSolvers = Mapping[tuple[int, str], FewStepSolver]


def collect_few_step(tensors: dict[str, Tensor], state_size: int) -> dict[tuple[int, str], FewStepSolver]:
    """Take all solvers out of saved tensors.

    Parameters
    ----------
    tensors
        By name; those of solvers are removed.
    state_size
        Numbers per cell that the solvers have to fit.

    Raises
    ------
    ValueError
        If the coefficients of one are incomplete, not finite, or of the wrong shape.
    """
    found = {}
    for name in [n for n in tensors if n.startswith("few_step.") and n.endswith(".times")]:
        prefix = name.removesuffix(".times")
        evaluations, _, kind = prefix.removeprefix("few_step.").partition(".")
        parts = [tensors.pop(f"{prefix}.{part}", None) for part in COEFFICIENTS]
        if kind not in KINDS or not _belong_together(evaluations, state_size, *parts):
            raise ValueError(f"the coefficients '{name}' do not belong together")
        found[int(evaluations), kind] = FewStepSolver(*parts)  # type: ignore[arg-type]
    return found


def _belong_together(
    evaluations: str,
    state_size: int,
    times: Tensor | None,
    weights: Tensor | None,
    matrix: Tensor | None,
    offset: Tensor | None,
) -> bool:
    if times is None or times.ndim != 1 or evaluations != str(len(times)):
        return False
    if weights is None or weights.shape != (len(times), len(times)) or (matrix is None) != (offset is None):
        return False
    if matrix is not None and matrix.shape != (state_size, state_size):
        return False
    if offset is not None and offset.shape != (state_size,):
        return False
    return all(bool(part.isfinite().all()) for part in (times, weights, matrix, offset) if part is not None)


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
    iterations: int = 25,
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


def corrected(
    solver: FewStepSolver,
    start: Float[Tensor, "cells state"],
    solved: Float[Tensor, "cells state"],
    end: Float[Tensor, "cells state"],
    groups: Sequence[slice],
) -> FewStepSolver:
    """Give what a solver makes the means and covariances that it should have.

    The map is the optimal transport of one Gaussian to another, ``A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2`` for covariances
    ``A`` and ``B``: of all linear maps that carry one to the other, the one that moves least.

    Parameters
    ----------
    solver
        Any correction that it has is replaced.
    start
        States at 0.
    solved
        Where the solver takes them, without any correction.
    end
        Where a fine solver takes them.
    groups
        Parts of the state that are corrected by themselves, each if enough cells moved in it.
    """
    # On the CPU: accelerators may have no float64, which the square roots need.
    begin, before, after = (x.cpu().double() for x in (start, solved, end))
    if not (before.isfinite().all() and after.isfinite().all()):
        return replace(solver, matrix=None, offset=None)
    matrix, offset = torch.zeros(start.shape[1], start.shape[1]), torch.zeros(start.shape[1])
    for group in groups:
        # Cells in which it is given, and so does not move, say nothing about it.
        moved = (after[:, group] != begin[:, group]).any(dim=1)
        have, want = before[moved, group], after[moved, group]
        if len(have) <= have.shape[1]:
            # Too few for a covariance that can be inverted.
            continue
        root, inverse_root = (_power(_covariance(have), exponent) for exponent in (0.5, -0.5))
        transport = inverse_root @ _power(root @ _covariance(want) @ root, 0.5) @ inverse_root
        matrix[group, group] = (transport - torch.eye(len(transport))).float()
        offset[group] = (want.mean(dim=0) - have.mean(dim=0) @ transport).float()
    return replace(solver, matrix=matrix, offset=offset)


def _covariance(cells: Float64[Tensor, "cells state"]) -> Float64[Tensor, "state state"]:
    centred = cells - cells.mean(dim=0)
    return centred.T @ centred / max(1, len(cells) - 1)


def _power(matrix: Float64[Tensor, "state state"], exponent: float) -> Float64[Tensor, "state state"]:
    """Power of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-9 * values.max()).pow(exponent)) @ vectors.T


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
    if not config.few_step_evaluations:
        return {}
    device = next(prior.parameters()).device
    trained = [(p, p.requires_grad) for p in prior.parameters()]
    was_training = prior.training
    prior.eval().requires_grad_(False)
    has_attributes = latents.cells.categorical.shape[1] + latents.cells.continuous.shape[1] > 0
    fitted = {}
    try:
        for kind in KINDS if has_attributes else KINDS[:1]:
            generator = step_generator(seed, f"few_step/{kind}", 0, device)
            blocks = [
                _fields(prior, latents, config, generator, n_cells, guided=kind == "guided")
                for n_cells in _block_sizes(prior.state_size)
            ]
            ends = [_solve_finely(field, start) for field, start in blocks]
            for n in config.few_step_evaluations:
                solver, _ = fit_few_step(blocks[0][0], blocks[0][1], ends[0], n)
                times, weights = solver.times.to(device).unbind(), solver.weights
                with torch.no_grad():
                    solved = [_integrate(field, start, times, weights) for field, start in blocks]
                # A given depth is neither corrected nor does it correct the latents.
                groups = (slice(0, -1), slice(-1, None)) if prior.with_depth else (slice(None),)
                starts = torch.cat([start for _, start in blocks])
                fitted[n, kind] = corrected(solver, starts, torch.cat(solved), torch.cat(ends), groups).to(device)
    finally:
        prior.train(was_training)
        for parameter, needed in trained:
            parameter.requires_grad_(needed)
    return fitted


def _block_sizes(state_size: int) -> list[int]:
    """Cells of the fit, and then blocks that make enough cells for the correction."""
    more = CELLS_PER_DIMENSION * state_size - FIT_CELLS
    return [FIT_CELLS, *(min(CELLS_AT_A_TIME, more - done) for done in range(0, more, CELLS_AT_A_TIME))]


@torch.no_grad()
def _solve_finely(field: Field, start: Float[Tensor, "cells state"]) -> Float[Tensor, "cells state"]:
    return heun(lambda state, time: field(state, state.new_tensor(time)), start, time_grid(FINE_STEPS))


def _fields(
    prior: DiT, latents: LatentStore, config: PriorConfig, generator: torch.Generator, n_cells: int, guided: bool
) -> tuple[Field, Tensor]:
    """Velocity of some training cells, and the noise they start from."""
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    rows = torch.randint(len(latents), (n_cells,), generator=generator, device=device).cpu().numpy()
    cells = latents[rows].to(device)
    n_attributes = cells.categorical.shape[1] + cells.continuous.shape[1]
    hidden = uniform(n_cells, n_attributes) < config.attribute_dropout
    categorical, continuous = hide_attributes(cells.categorical, cells.continuous, hidden)
    start = torch.randn(n_cells, prior.state_size, generator=generator, device=device)
    known = uniform(n_cells) < config.given_depth_fraction
    start[:, -1] = torch.where(known, cells.depth, start[:, -1])
    if not guided:
        return lambda state, time: prior(state, time.expand(len(state)), categorical, continuous, known), start

    scales = torch.tensor(GUIDANCE_SCALES, device=device)
    scale = scales[torch.randint(len(scales), (n_cells, 1), generator=generator, device=device)]
    null_categorical, null_continuous = hide_attributes(categorical, continuous)
    both_categorical = torch.cat([categorical, null_categorical])
    both_continuous = torch.cat([continuous, null_continuous])

    def field(state: Tensor, time: Tensor) -> Tensor:
        times = time.expand(2 * len(state))
        velocities = prior(state.repeat(2, 1), times, both_categorical, both_continuous, known.repeat(2))
        conditional, null = velocities.chunk(2)
        return torch.lerp(null, conditional, scale)

    return field, start

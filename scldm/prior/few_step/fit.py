"""How the coefficients are fitted by least squares, and the solvers of a trained prior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scldm.prior.config import PriorConfig
from scldm.prior.dit import DiT
from scldm.prior.few_step.correction import corrected
from scldm.prior.few_step.field import Field, field_of_training_cells
from scldm.prior.few_step.solver import KINDS, FewStepSolver, integrate
from scldm.prior.latents import LatentStore
from scldm.prior.solvers import heun, time_grid
from scldm.prior.state import PARTS
from scldm.seeds import Seeding, torch_rng

__all__ = ["fit_few_step", "fit_to_prior"]

#: Cells that the coefficients are fitted to, and steps of the Heun solver that they are compared with.
FIT_CELLS, FINE_STEPS = 64, 25
#: Cells for every number of the state that the correction is estimated from, and cells that are solved at a time.
CELLS_PER_DIMENSION, CELLS_AT_A_TIME = 8, 512


def fit_few_step(
    field: Field,
    start: Float[Tensor, "cells state"],
    end: Float[Tensor, "cells state"],
    evaluations: int,
    *,
    iterations: int = 25,
) -> tuple[FewStepSolver, float]:
    """Fit the coefficients by least squares (L-BFGS), starting with those of the midpoint solver.

    Parameters
    ----------
    field
        Velocity, differentiable in state and time.
    start, end
        States at 0, and where a solver with many steps takes them at 1.
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
        error = (integrate(field, start, times, weights * lower) - end).square().mean()
        error.backward()
        if error.item() < best[0]:
            best = (error.item(), weights.detach().clone(), logits.detach().clone())
        return error

    optimiser.step(loss)
    error, weights, logits = best
    times = torch.cat([logits.new_zeros(1), logits.sigmoid()])
    return FewStepSolver(times.cpu(), (weights * lower).cpu()), error**0.5


def fit_to_prior(
    prior: DiT, latents: LatentStore, config: PriorConfig, seed: int, seeding: Seeding
) -> dict[tuple[int, str], FewStepSolver]:
    """Fit solvers for every number in ``config.few_step_evaluations``.

    The ``plain`` field is the one that training knows: attributes and depths of training cells, hidden and given as
    often. In the ``guided`` field (of a prior with attributes) every cell is guided jointly, by a scale of its own:
    guided paths bend more, and there the coefficients for plain ones would be worse than none.

    Parameters
    ----------
    prior
        Trained.
    latents
        Of the training cells, whose attributes and depths are taken.
    config
        Numbers of evaluations, attribute dropout, share of given depths.
    seed, seeding
        See :func:`scldm.seeds.torch_rng`; noise, the choice of cells, and their scales follow from them.

    Returns
    -------
    Solvers by number of evaluations and kind of field, on the device of the prior.
    """
    if not config.few_step_evaluations:
        return {}
    device = next(prior.parameters()).device
    has_attributes = latents.cells.categorical.shape[1] + latents.cells.continuous.shape[1] > 0
    fitted = {}
    with _frozen(prior):
        for kind in KINDS if has_attributes else KINDS[:1]:
            rng = torch_rng(seed, f"few_step/{kind}", 0, device, seeding)
            blocks = [
                field_of_training_cells(prior, latents, config, rng, n_cells, guided=kind == "guided")
                for n_cells in _block_sizes(prior.state_size)
            ]
            ends = [_solve_finely(field, start) for field, start in blocks]
            starts = torch.cat([start for _, start in blocks])
            for n in config.few_step_evaluations:
                solver, _ = fit_few_step(blocks[0][0], blocks[0][1], ends[0], n)
                times, weights = solver.times.to(device).unbind(), solver.weights
                with torch.no_grad():
                    solved = [integrate(field, start, times, weights) for field, start in blocks]
                # A known depth is neither corrected nor does it correct the latents.
                fitted[n, kind] = corrected(solver, starts, torch.cat(solved), torch.cat(ends), PARTS).to(device)
    return fitted


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, its weights without gradients, and back into what it was."""
    trained = [(p, p.requires_grad) for p in network.parameters()]
    was_training = network.training
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        network.train(was_training)
        for parameter, needed in trained:
            parameter.requires_grad_(needed)


def _block_sizes(state_size: int) -> list[int]:
    """Return the number of cells of the fit, and then of blocks that make enough cells for the correction."""
    more = CELLS_PER_DIMENSION * state_size - FIT_CELLS
    return [FIT_CELLS, *(min(CELLS_AT_A_TIME, more - done) for done in range(0, more, CELLS_AT_A_TIME))]


@torch.no_grad()
def _solve_finely(field: Field, start: Float[Tensor, "cells state"]) -> Float[Tensor, "cells state"]:
    return heun(lambda state, time: field(state, state.new_tensor(time)), start, time_grid(FINE_STEPS))

"""The linear map that gives the end points of a solver the means and covariances that they should have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from scldm.prior.few_step.solver import FewStepSolver

__all__ = ["corrected"]


def corrected(
    solver: FewStepSolver,
    start: Float[Tensor, "cells state"],
    solved: Float[Tensor, "cells state"],
    end: Float[Tensor, "cells state"],
    parts: Sequence[slice],
) -> FewStepSolver:
    """Return a solver with the correction that takes its end points to the means and covariances of better ones.

    The map is the optimal transport of one Gaussian to another, ``A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2`` for covariances
    ``A`` and ``B``: of all linear maps that take one to the other, it moves cells the least.

    Parameters
    ----------
    solver
        Any correction that it has is replaced. It gets none if an end point is not finite.
    start
        States at 0.
    solved
        Where the solver takes them, without any correction.
    end
        Where a solver with many steps takes them.
    parts
        Columns that are corrected by themselves, each if enough cells moved in it.
    """
    # On the CPU: accelerators may have no float64, which the square roots need.
    begin, before, after = (x.cpu().double() for x in (start, solved, end))
    if not (before.isfinite().all() and after.isfinite().all()):
        return replace(solver, matrix=None, offset=None)
    matrix, offset = torch.zeros(start.shape[1], start.shape[1]), torch.zeros(start.shape[1])
    for part in parts:
        # Cells whose numbers are given in this part do not move, and so tell nothing about the solver.
        moved = (after[:, part] != begin[:, part]).any(dim=1)
        have, want = before[moved, part], after[moved, part]
        if len(have) <= have.shape[1]:
            # Too few for a covariance that can be inverted.
            continue
        root, inverse_root = (_power(_covariance(have), exponent) for exponent in (0.5, -0.5))
        transport = inverse_root @ _power(root @ _covariance(want) @ root, 0.5) @ inverse_root
        if not transport.isfinite().all():
            # Cells that all arrive in one point have no covariance that can be inverted.
            continue
        matrix[part, part] = (transport - torch.eye(len(transport))).float()
        offset[part] = (want.mean(dim=0) - have.mean(dim=0) @ transport).float()
    return replace(solver, matrix=matrix, offset=offset)


def _covariance(cells: Float64[Tensor, "cells state"]) -> Float64[Tensor, "state state"]:
    centred = cells - cells.mean(dim=0)
    return centred.T @ centred / max(1, len(cells) - 1)


def _power(matrix: Float64[Tensor, "state state"], exponent: float) -> Float64[Tensor, "state state"]:
    """Raise a positive semi-definite matrix to a power."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-9 * values.max()).pow(exponent)) @ vectors.T

"""The straight path between two states of a cell."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from scldm.prior.state import CellState

__all__ = ["PathPoint", "interpolate"]


@dataclass(frozen=True, eq=False)
class PathPoint:
    """Where cells are on their paths and where they go.

    Attributes
    ----------
    state
        The point x_t, packed.
    velocity
        dx_t/dt there, packed in the same way.
    """

    state: Float[Tensor, "cells state"]
    velocity: Float[Tensor, "cells state"]


def interpolate(source: CellState, target: CellState, time: Float[Tensor, " cells"]) -> PathPoint:
    """Return the point x_t = (1 - t) x_0 + t x_1 and its velocity x_1 - x_0 (Lipman et al., 2023; Liu et al., 2023).

    Parameters
    ----------
    source, target
        The states at times 0 and 1. A cell whose depth is known in the target has that depth all along its path,
        whatever its source says, and the velocity of its depth is 0.
    time
        In [0, 1], one per cell.
    """
    known = target.depth_known
    if known is not None:
        source = source.give_depth(target.depth, known)
    start, end = source.pack(), target.pack()
    t = time[:, None]
    state = (1 - t) * start + t * end
    if known is not None:
        # (1 - t) d + t d is d only up to rounding, and when cells are generated the known depth is exact.
        state = CellState.unpack(state).give_depth(target.depth, known).pack()
    return PathPoint(state, end - start)

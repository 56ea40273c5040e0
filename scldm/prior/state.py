"""What the prior generates of a cell: its latents and its depth, and how the two are packed into one row of numbers.

Networks and solvers work on packed states. Nothing else has to know where in a row the depth is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["PARTS", "CellState", "pack", "packed_size", "unpack"]

#: Columns of a packed state by part: the latents, then the depth.
PARTS = (slice(0, -1), slice(-1, None))


def packed_size(latent_size: int) -> int:
    """Return how many numbers a packed state has, from how many those of its latents are."""
    return latent_size + 1


def pack(latents: Float[Tensor, "cells latents"], depth: Float[Tensor, " cells"]) -> Float[Tensor, "cells state"]:
    """Put latents and depths, or their velocities, into one row of numbers per cell."""
    return torch.cat([latents, depth[:, None]], dim=1)


def unpack(
    packed: Float[Tensor, "cells state"],
) -> tuple[Float[Tensor, "cells latents"], Float[Tensor, " cells"]]:
    """Take latents and depths out of rows of numbers, with which they share memory."""
    return packed[:, PARTS[0]], packed[:, -1]


@dataclass(frozen=True, eq=False)
class CellState:
    """State of some cells in the coordinates of the prior, at any time of their paths.

    Attributes
    ----------
    latents
        Standardised latents (:meth:`scldm.prior.latents.LatentStatistics.standardise`), token by token.
    depth
        Normal score of the library size (:class:`scldm.data.depth.DepthStatistics`).
    depth_known
        Cells whose depth is given: it does not move along their paths. None means no cell.
    """

    latents: Float[Tensor, "cells latents"]
    depth: Float[Tensor, " cells"]
    depth_known: Bool[Tensor, " cells"] | None = None

    @classmethod
    def unpack(
        cls, packed: Float[Tensor, "cells state"], depth_known: Bool[Tensor, " cells"] | None = None
    ) -> CellState:
        """Return the state that is packed in rows of numbers; it shares memory with them."""
        return cls(*unpack(packed), depth_known)

    @classmethod
    def concatenate(cls, states: Sequence[CellState]) -> CellState:
        """Put the cells of several states after one another."""
        latents, depth = torch.cat([s.latents for s in states]), torch.cat([s.depth for s in states])
        if all(s.depth_known is None for s in states):
            return cls(latents, depth)
        nobody = [torch.zeros_like(s.depth, dtype=torch.bool) for s in states]
        known = [no if s.depth_known is None else s.depth_known for s, no in zip(states, nobody, strict=True)]
        return cls(latents, depth, torch.cat(known))

    def pack(self) -> Float[Tensor, "cells state"]:
        """Return one row of numbers per cell, the form in which networks and solvers take a state."""
        return pack(self.latents, self.depth)

    def give_depth(self, depth: Float[Tensor, " cells"], known: Bool[Tensor, " cells"]) -> CellState:
        """Return the state with the depth of some cells replaced and marked as known.

        Parameters
        ----------
        depth
            Normal scores; only those of the cells in ``known`` matter.
        known
            Cells whose depth is given.
        """
        return CellState(self.latents, torch.where(known, depth, self.depth), known)

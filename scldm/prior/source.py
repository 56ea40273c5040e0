"""Where the paths of the prior start at time 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int64

from scldm.prior.state import CellState, packed_size

__all__ = ["Noise", "Source"]


class Source(Protocol):
    """Distribution of the states at time 0."""

    def draw(self, n_cells: int, rng: torch.Generator, rows: Int64[np.ndarray, " cells"] | None = None) -> CellState:
        """Draw the states in which paths start.

        Parameters
        ----------
        n_cells
            Number of paths.
        rng
            Source of all randomness; the states are on its device.
        rows
            Which of the cells that are worked on each path belongs to, for a source that knows a start for every cell.
            One whose starts are all alike needs none.
        """
        ...


@dataclass(frozen=True)
class Noise:
    """Standard normal latents and depths, the same for every cell.

    Attributes
    ----------
    latent_size
        Numbers of a cell's latents, over all tokens and channels.
    """

    latent_size: int

    def draw(self, n_cells: int, rng: torch.Generator, rows: Int64[np.ndarray, " cells"] | None = None) -> CellState:
        """See :meth:`Source.draw`; ``rows`` changes nothing."""
        return CellState.unpack(torch.randn(n_cells, packed_size(self.latent_size), generator=rng, device=rng.device))

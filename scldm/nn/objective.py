"""What a training loop needs of a network: its loss, with all randomness handed in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Noise", "Objective"]

Noise = dict[str, Tensor]
"""Everything random that a step needs, by name; the first dimension of each tensor is cells."""


class Objective(nn.Module):
    """A network together with the loss it is trained on."""

    #: The network that is saved; its weights are averaged.
    network: nn.Module

    def draw_noise(self, n_cells: int, rng: torch.Generator) -> Noise:
        """Draw everything random that one step needs, on the device of ``rng``."""
        raise NotImplementedError

    def forward(self, batch: Any, noise: Noise) -> dict[str, Tensor]:
        """Return losses per cell, ``[cells]`` each; ``loss`` is minimised, the others are only reported."""
        raise NotImplementedError

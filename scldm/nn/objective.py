"""What a training loop needs of a network: its loss, with all randomness handed in."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Noise", "Objective", "step_generator", "step_seed"]

Noise = dict[str, Tensor]


class Objective(nn.Module):
    """A network together with the loss it is trained on."""

    #: The network that is saved; its weights are averaged.
    network: nn.Module

    def draw_noise(self, n_cells: int, generator: torch.Generator) -> Noise:
        """Draw everything random that one step needs, the first dimension of each tensor being cells."""
        raise NotImplementedError

    def forward(self, batch: Any, noise: Noise) -> dict[str, Tensor]:
        """Losses per cell, ``[cells]`` each; ``loss`` is minimised, the others are only reported."""
        raise NotImplementedError


def step_generator(seed: int, stage: str, step: int, device: torch.device | str) -> torch.Generator:
    """Return the generator of one step, a pure function of its arguments."""
    return torch.Generator(device).manual_seed(step_seed(seed, stage, step))


def step_seed(seed: int, stage: str, step: int) -> int:
    """Return the seed of one step, below 2^63."""
    digest = hashlib.blake2b(f"{seed}/{stage}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

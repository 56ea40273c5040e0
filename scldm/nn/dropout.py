"""Dropout whose masks belong to the cells: however a batch is shared out, a cell loses the same channels."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

__all__ = ["CellDropout", "draw_seeds", "uniform_of"]

# Constants of the mixing function of splitmix64 (Steele et al., 2014), as signed 64-bit integers.
_STEP, _MIX_1, _MIX_2 = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_seeds(n_cells: int, rng: torch.Generator) -> Int64[Tensor, " cells"]:
    """Draw the number of every cell from which its masks follow."""
    return torch.empty(n_cells, dtype=torch.int64, device=rng.device).random_(generator=rng)


class CellDropout(nn.Module):
    """Dropout of single numbers, whose mask is a hash of the cell's seed, of the place and of this module's number.

    Parameters
    ----------
    share
        Of the numbers that become zero; the others are divided by what is left.
    number
        Of this module in its network: modules with other numbers have other masks.
    """

    def __init__(self, share: float, number: int) -> None:
        super().__init__()
        self.share, self.number = share, number

    def forward(
        self, values: Float[Tensor, "cells tokens width"], seeds: Int64[Tensor, " cells"] | None
    ) -> Float[Tensor, "cells tokens width"]:
        """Drop in training; without seeds, or otherwise, give the values as they are."""
        if seeds is None or not self.training or self.share == 0:
            return values
        places = torch.arange(values[0].numel(), dtype=torch.int64, device=values.device).view(values.shape[1:])
        uniform = uniform_of(seeds[:, None, None], places + self.number * 2**40)
        return values * (uniform >= self.share) / (1 - self.share)


def uniform_of(seeds: Int64[Tensor, "*s"], places: Int64[Tensor, "*p"]) -> Float[Tensor, "*both"]:
    """Hash seeds and places, which are broadcast, into numbers that are uniform on [0, 1), in steps of 2^-24."""
    mixed = seeds + places * _STEP
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return _shifted(mixed ^ _shifted(mixed, 31), 40).to(torch.float32) / 2**24


def _shifted(values: Tensor, places: int) -> Tensor:
    """Shift bits to the right and fill with zeros; torch fills with the sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)

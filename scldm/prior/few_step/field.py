"""The velocity fields of training cells, to which solvers are fitted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from scldm.data.batch import attributes_to_hide, hide_attributes
from scldm.prior.config import PriorConfig
from scldm.prior.dit import DiT
from scldm.prior.latents import LatentStore
from scldm.prior.source import Noise

__all__ = ["GUIDANCE_SCALES", "Field", "field_of_training_cells"]

#: Scales of joint guidance in guided fields.
GUIDANCE_SCALES = (1.0, 1.5, 2.0, 3.0)

Field = Callable[[Tensor, Tensor], Tensor]
"""Velocity of a state [cells, state] at a time that is a tensor without dimensions, so that it has a gradient."""


def field_of_training_cells(
    prior: DiT, latents: LatentStore, config: PriorConfig, rng: torch.Generator, n_cells: int, *, guided: bool
) -> tuple[Field, Float[Tensor, "cells state"]]:
    """Choose training cells, and return the velocity that the prior gives them and the noise that they start from.

    Parameters
    ----------
    prior
        In evaluation mode.
    latents
        Of the training cells, whose attributes and depths are taken.
    config
        Attribute dropout and share of given depths, which hide and give as often here as in training.
    rng
        Source of all randomness, on the device of the prior.
    n_cells
        Number of cells.
    guided
        Guide every cell jointly, by one of :data:`GUIDANCE_SCALES`.
    """
    device = rng.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    rows = torch.randint(len(latents), (n_cells,), generator=rng, device=device).cpu().numpy()
    cells = latents[rows].to(device)
    n_attributes = cells.categorical.shape[1] + cells.continuous.shape[1]
    noise = uniform(n_cells, n_attributes + 1)
    hidden = attributes_to_hide(noise, config.attribute_dropout, config.joint_attribute_dropout)
    categorical, continuous = hide_attributes(cells.categorical, cells.continuous, hidden)
    start = Noise(prior.latent_size).draw(n_cells, rng)
    known = uniform(n_cells) < config.given_depth_fraction
    state = start.give_depth(cells.depth, known).pack()
    if not guided:
        return lambda x, time: prior(x, time.expand(len(x)), categorical, continuous, known), state

    scales = torch.tensor(GUIDANCE_SCALES, device=device)
    scale = scales[torch.randint(len(scales), (n_cells, 1), generator=rng, device=device)]
    null_categorical, null_continuous = hide_attributes(categorical, continuous)
    both_categorical = torch.cat([categorical, null_categorical])
    both_continuous = torch.cat([continuous, null_continuous])

    def field(x: Tensor, time: Tensor) -> Tensor:
        times = time.expand(2 * len(x))
        velocities = prior(x.repeat(2, 1), times, both_categorical, both_continuous, known.repeat(2))
        conditional, null = velocities.chunk(2)
        return torch.lerp(null, conditional, scale)

    return field, state

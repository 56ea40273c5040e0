"""What the prior is trained on: the velocity of linear interpolants between noise and encoded cells."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scldm.data.batch import hide_attributes
from scldm.nn.objective import Noise, Objective
from scldm.prior.config import PriorConfig
from scldm.prior.dit import DiT
from scldm.prior.interpolant import TIME_SAMPLERS, LinearInterpolant
from scldm.prior.latents import LatentBatch, LatentStatistics

__all__ = ["PriorObjective"]


class PriorObjective(Objective):
    """Flow matching on standardised latents and depth, with every attribute hidden independently.

    Parameters
    ----------
    network
        The velocity network.
    statistics
        Standardisation of the latents.
    config
        Time distribution, attribute dropout, share of given depths.

    Notes
    -----
    Loss (Lipman et al. 2023, eq. 23, linear path): ``|v(x_t, t, c) - (x_1 - x_0)|^2``, averaged over the numbers of the
    state, so that its value does not depend on the latent size.
    """

    def __init__(self, network: DiT, statistics: LatentStatistics, config: PriorConfig) -> None:
        super().__init__()
        self.network: DiT = network
        self.config = config
        self.interpolant = LinearInterpolant()
        self.n_attributes = len(network.attributes.tables) + len(network.attributes.projections)
        self.register_buffer("latent_mean", statistics.mean, persistent=False)
        self.register_buffer("latent_std", statistics.std, persistent=False)

    latent_mean: Float[Tensor, " state"]
    latent_std: Float[Tensor, " state"]

    def draw_noise(self, n_cells: int, generator: torch.Generator) -> Noise:
        """See :meth:`scldm.nn.objective.Objective.draw_noise`."""
        device, state_size = generator.device, self.network.state_size
        return {
            "posterior": torch.randn(n_cells, state_size - 1, generator=generator, device=device),
            "state": torch.randn(n_cells, state_size, generator=generator, device=device),
            "time": TIME_SAMPLERS[self.config.time_distribution](n_cells, generator),
            "hide": torch.rand(n_cells, self.n_attributes, generator=generator, device=device),
            "give_depth": torch.rand(n_cells, generator=generator, device=device),
        }

    def forward(self, batch: LatentBatch, noise: Noise) -> dict[str, Tensor]:
        """Mean squared error of the velocity per cell, ``loss``."""
        latents = batch.mean + (0.5 * batch.log_variance).exp() * noise["posterior"]
        latents = (latents - self.latent_mean) / self.latent_std
        data = torch.cat([latents, batch.depth[:, None]], dim=1)
        depth_known = noise["give_depth"] < self.config.given_depth_fraction
        point = self.interpolant.point(noise["state"], data, noise["time"], depth_known)

        hidden = noise["hide"] < self.config.attribute_dropout
        categorical, continuous = hide_attributes(batch.categorical, batch.continuous, hidden)
        velocity = self.network(point.state, noise["time"], categorical, continuous, depth_known)
        return {"loss": (velocity.float() - point.velocity).square().mean(dim=1)}

"""What the prior is trained on: the velocity of straight paths from a source to encoded cells."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scldm.data.batch import attributes_to_hide, hide_attributes
from scldm.nn.dropout import draw_seeds
from scldm.nn.objective import Noise, Objective
from scldm.prior import source
from scldm.prior.config import PriorConfig
from scldm.prior.dit import DiT
from scldm.prior.latents import LatentBatch, LatentStatistics
from scldm.prior.path import interpolate
from scldm.prior.registry import TIME_SAMPLERS
from scldm.prior.state import CellState

__all__ = ["PriorObjective"]


class PriorObjective(Objective):
    """Flow matching on standardised latents and depth, with attributes hidden one by one and all together.

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
    The loss is ``|v(x_t, t, c) - (x_1 - x_0)|^2`` (Lipman et al. 2023, eq. 23, linear path), averaged over the numbers
    of the state, so that its value does not depend on the latent size.
    """

    def __init__(self, network: DiT, statistics: LatentStatistics, config: PriorConfig) -> None:
        super().__init__()
        self.network: DiT = network
        self.config = config
        self.source: source.Source = source.Noise(network.latent_size)
        self.n_attributes = len(network.attributes.tables) + len(network.attributes.projections)
        self.register_buffer("latent_mean", statistics.mean, persistent=False)
        self.register_buffer("latent_std", statistics.std, persistent=False)

    latent_mean: Float[Tensor, " latents"]
    latent_std: Float[Tensor, " latents"]

    def draw_noise(self, n_cells: int, rng: torch.Generator) -> Noise:
        """See :meth:`scldm.nn.objective.Objective.draw_noise`."""
        device = rng.device
        noise = {
            "posterior": torch.randn(n_cells, self.network.latent_size, generator=rng, device=device),
            "state": self.source.draw(n_cells, rng).pack(),
            "time": TIME_SAMPLERS[self.config.time_distribution](n_cells, rng),
            "hide": torch.rand(n_cells, self.n_attributes + 1, generator=rng, device=device),
            "give_depth": torch.rand(n_cells, generator=rng, device=device),
        }
        if self.config.dropout > 0:
            noise["dropout"] = draw_seeds(n_cells, rng)
        return noise

    def forward(self, batch: LatentBatch, noise: Noise) -> dict[str, Tensor]:
        """Return the mean squared error of the velocity of every cell, ``loss``."""
        latents = batch.mean + (0.5 * batch.log_variance).exp() * noise["posterior"]
        latents = LatentStatistics(self.latent_mean, self.latent_std).standardise(latents)
        depth_known = noise["give_depth"] < self.config.given_depth_fraction
        target = CellState(latents, batch.depth, depth_known)
        point = interpolate(CellState.unpack(noise["state"]), target, noise["time"])

        hidden = attributes_to_hide(noise["hide"], self.config.attribute_dropout, self.config.joint_attribute_dropout)
        categorical, continuous = hide_attributes(batch.categorical, batch.continuous, hidden)
        velocity = self.network(point.state, noise["time"], categorical, continuous, depth_known, noise.get("dropout"))
        return {"loss": (velocity.float() - point.velocity).square().mean(dim=1)}

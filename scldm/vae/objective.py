"""What the autoencoder is trained on: the negative evidence lower bound of the counts."""

from __future__ import annotations

import torch
from torch import Tensor

from scldm.data.batch import CellBatch
from scldm.nn.objective import Noise, Objective
from scldm.vae.model import VAE

__all__ = ["VAEObjective"]


class VAEObjective(Objective):
    """Negative evidence lower bound with a weighted KL term.

    Parameters
    ----------
    vae
        The network.
    dispersion_attribute
        Position of ``dispersion_by`` among the categorical attributes, or None.
    """

    def __init__(self, vae: VAE, dispersion_attribute: int | None = None) -> None:
        super().__init__()
        self.network: VAE = vae
        self.dispersion_attribute = dispersion_attribute

    def draw_noise(self, n_cells: int, generator: torch.Generator) -> Noise:
        """See :meth:`scldm.nn.objective.Objective.draw_noise`."""
        config, device = self.network.config, generator.device
        noise = {
            "latents": torch.randn(
                n_cells, config.n_latents, config.latent_channels, generator=generator, device=device
            )
        }
        if config.layout == "wide" and config.dropout:
            noise["dropout"] = torch.rand(n_cells, config.table_width, generator=generator, device=device)
        return noise

    def forward(self, batch: CellBatch, noise: Noise) -> dict[str, Tensor]:
        """Losses per cell in nats: ``loss``, and its parts ``nll`` and ``kl``."""
        vae = self.network
        posterior = vae.encode(batch, noise.get("dropout") if self.training else None)
        log_fractions = vae.log_fractions(posterior.sample(noise["latents"]))
        k = self.dispersion_attribute
        categories = None if k is None else batch.categorical[:, k]
        # lgamma differences of large counts need float32 even under bf16 autocast.
        with torch.autocast(batch.device.type, enabled=False):
            nll = vae.likelihood.negative_log_likelihood(log_fractions, batch, categories)
            kl = posterior.kl_divergence()
        return {"loss": nll + vae.config.kl_weight * kl, "nll": nll, "kl": kl}

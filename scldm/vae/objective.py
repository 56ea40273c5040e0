"""What the autoencoder is trained on: the negative evidence lower bound of the counts."""

from __future__ import annotations

import torch
from torch import Tensor

from scldm.data.batch import CellBatch, attributes_to_hide
from scldm.nn.dropout import draw_seeds
from scldm.nn.objective import Noise, Objective
from scldm.vae.model import VAE
from scldm.vae.thinning import thin

__all__ = ["VAEObjective"]


class VAEObjective(Objective):
    """Negative evidence lower bound with a weighted KL term, and the prior that the decoder has on its weights.

    Parameters
    ----------
    vae
        The network.
    dispersion_attribute
        Position of ``dispersion_by`` among the categorical attributes, or None.
    n_training_cells
        Over which the decoder's prior is spread; None leaves it out.
    """

    def __init__(self, vae: VAE, dispersion_attribute: int | None = None, n_training_cells: int | None = None) -> None:
        super().__init__()
        self.network: VAE = vae
        self.dispersion_attribute = dispersion_attribute
        self.n_training_cells = n_training_cells

    def draw_noise(self, n_cells: int, rng: torch.Generator) -> Noise:
        """See :meth:`scldm.nn.objective.Objective.draw_noise`."""
        config, device = self.network.config, rng.device
        noise = {
            "latents": torch.randn(n_cells, config.n_latents, config.latent_channels, generator=rng, device=device)
        }
        if channels := self.network.encoder.dropout_channels:
            noise["dropout"] = torch.rand(n_cells, channels, generator=rng, device=device)
        if config.thinning and self.network.encoder.ignores_zero_counts:
            noise["thinning"] = torch.rand(n_cells, generator=rng, device=device)
            noise["thinned"] = draw_seeds(n_cells, rng)
        if self.network.n_attributes:
            noise["hide"] = torch.rand(n_cells, self.network.n_attributes + 1, generator=rng, device=device)
        return noise

    def forward(self, batch: CellBatch, noise: Noise) -> dict[str, Tensor]:
        """Losses per cell in nats: ``loss``, and its parts ``nll`` and ``kl``."""
        vae, seen, config = self.network, batch, self.network.config
        if self.training and "thinning" in noise:
            seen = thin(seen, 1.0 - config.thinning * noise["thinning"], noise["thinned"])
        if self.training and "hide" in noise:
            seen = seen.hide_attributes(
                attributes_to_hide(noise["hide"], config.attribute_dropout, config.joint_attribute_dropout)
            )
        posterior = vae.encode(seen, noise.get("dropout") if self.training else None)
        heads = vae.heads(posterior.sample(noise["latents"]))
        k = self.dispersion_attribute
        categories = None if k is None else batch.categorical[:, k]
        # lgamma differences of large counts need float32 even under bf16 autocast.
        with torch.autocast(batch.device.type, enabled=False):
            nll = vae.likelihood.negative_log_likelihood(heads, batch, categories)
            kl = posterior.kl_divergence()
            loss = nll + vae.config.kl_weight * kl
            if self.training and self.n_training_cells is not None:
                loss = loss + vae.decoder.penalty(self.n_training_cells)
        return {"loss": loss, "nll": nll, "kl": kl}

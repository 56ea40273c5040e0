"""What the autoencoder is trained on: the negative evidence lower bound of the counts."""

from __future__ import annotations

import torch
from torch import Tensor

from scldm.data.batch import CellBatch
from scldm.nn.objective import Noise, Objective
from scldm.vae.model import VAE
from scldm.vae.wide import WideDecoder

__all__ = ["VAEObjective"]


class VAEObjective(Objective):
    """Negative evidence lower bound with a weighted KL term, and a prior on the weights of the genes.

    Parameters
    ----------
    vae
        The network.
    dispersion_attribute
        Position of ``dispersion_by`` among the categorical attributes, or None.
    n_training_cells
        Over which the prior on the read-outs is spread; None leaves it out.

    Notes
    -----
    The prior is a Gaussian on the read-outs of every gene (wide layout). Its negative logarithm is a part of what is
    minimised, not a decay of the weights: Adam moves the weights of a gene with ten counts as fast as those of one
    with ten thousand, and only a penalty that is weighed against the likelihood leaves the first where they are.
    """

    def __init__(self, vae: VAE, dispersion_attribute: int | None = None, n_training_cells: int | None = None) -> None:
        super().__init__()
        self.network: VAE = vae
        self.dispersion_attribute = dispersion_attribute
        self.n_training_cells = n_training_cells

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
        if self.network.n_attributes:
            noise["hide"] = torch.rand(n_cells, self.network.n_attributes, generator=generator, device=device)
        return noise

    def forward(self, batch: CellBatch, noise: Noise) -> dict[str, Tensor]:
        """Losses per cell in nats: ``loss``, and its parts ``nll`` and ``kl``."""
        vae, seen = self.network, batch
        if self.training and "hide" in noise:
            seen = batch.hide_attributes(noise["hide"] < vae.config.attribute_dropout)
        posterior = vae.encode(seen, noise.get("dropout") if self.training else None)
        log_rates = vae.log_rates(posterior.sample(noise["latents"]))
        k = self.dispersion_attribute
        categories = None if k is None else batch.categorical[:, k]
        # lgamma differences of large counts need float32 even under bf16 autocast.
        with torch.autocast(batch.device.type, enabled=False):
            nll = vae.likelihood.negative_log_likelihood(log_rates, batch, categories)
            kl = posterior.kl_divergence()
            loss = nll + vae.config.kl_weight * kl
            if self.training:
                loss = loss + self._penalty()
        return {"loss": loss, "nll": nll, "kl": kl}

    def _penalty(self) -> Tensor | float:
        """Negative log prior of the read-outs, in nats per training cell."""
        decoder = self.network.decoder
        if self.n_training_cells is None or not isinstance(decoder, WideDecoder):
            return 0.0
        squares = decoder.unpooling.read_out.square().sum()
        return squares / (2 * self.network.config.read_out_std**2 * self.n_training_cells)

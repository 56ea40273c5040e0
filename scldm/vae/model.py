"""The autoencoder: an encoder and a decoder of one layout, a bottleneck between them, a likelihood behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from scldm.data.batch import CellBatch
from scldm.errors import UserError
from scldm.nn.attention import EPS
from scldm.vae.base import Decoder, Encoder
from scldm.vae.config import VAEConfig
from scldm.vae.counts.base import Heads
from scldm.vae.counts.exact import sample_to_depth
from scldm.vae.counts.registry import LIKELIHOODS
from scldm.vae.counts.sparse import SparseCounts
from scldm.vae.counts.truncated import sample_some_counts
from scldm.vae.layouts import LAYOUTS

__all__ = ["VAE", "Posterior"]

#: exp(-30) is zero noise in float32 terms; stands for the deterministic bottleneck's log-variance.
DETERMINISTIC_LOG_VARIANCE = -30.0


@dataclass(frozen=True, eq=False)
class Posterior:
    """Diagonal Gaussian q(Z | cell) over latent tokens.

    Attributes
    ----------
    mean, log_variance
        ``[cells, latents, channels]``. The log-variance is None for the deterministic bottleneck.
    """

    mean: Float[Tensor, "cells latents channels"]
    log_variance: Float[Tensor, "cells latents channels"] | None

    def sample(self, noise: Float[Tensor, "cells latents channels"]) -> Float[Tensor, "cells latents channels"]:
        """Turn standard normal ``noise`` into latents."""
        if self.log_variance is None:
            return self.mean
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def kl_divergence(self) -> Float[Tensor, " cells"]:
        """KL(q || N(0, 1)) in nats per cell; zero for the deterministic bottleneck."""
        if self.log_variance is None:
            return self.mean.new_zeros(len(self.mean))
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.sum(dim=(1, 2))


class VAE(nn.Module):
    """Permutation-invariant variational autoencoder of cells (Palla et al. 2025, section 3).

    Parameters
    ----------
    config
        Layout and sizes.
    n_genes
        Genes of the schema.
    n_dispersion_categories
        Categories of ``config.dispersion_by``; 0 when it is None.
    gene_totals
        UMI counts of every gene over the training cells; the decoder starts from their proportions. None starts from
        equal rates.
    n_categories, n_continuous
        Categories of every categorical attribute, and number of continuous ones, that the encoder of the wide layout
        takes into account; the published layout sees the counts alone.
    """

    def __init__(
        self,
        config: VAEConfig,
        n_genes: int,
        n_dispersion_categories: int = 0,
        gene_totals: Float[np.ndarray, " genes"] | None = None,
        n_categories: Sequence[int] = (),
        n_continuous: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.n_genes = config, n_genes
        self.n_attributes = len(n_categories) + n_continuous
        likelihood = LIKELIHOODS[config.likelihood].load()
        self.encoder: Encoder
        self.decoder: Decoder
        self.encoder, self.decoder = resolve_name(LAYOUTS[config.layout])(
            config,
            n_genes,
            heads=likelihood.heads,
            gene_totals=gene_totals,
            n_categories=n_categories,
            n_continuous=n_continuous,
        )
        gaussian = config.bottleneck == "gaussian"
        self.bottleneck = nn.Linear(config.width, config.latent_channels * (2 if gaussian else 1), bias=gaussian)
        self.likelihood = likelihood(n_genes, n_dispersion_categories)

    def encode(self, batch: CellBatch, pooled_dropout: Float[Tensor, "cells channels"] | None = None) -> Posterior:
        """Posterior over the latent tokens of each cell.

        Parameters
        ----------
        batch
            Cells; known attributes help to infer the latents (wide layout).
        pooled_dropout
            Uniform numbers that decide which pooled channels are dropped (wide layout, training only).
        """
        hidden = self.bottleneck(self.encoder(batch, pooled_dropout))
        if self.config.bottleneck == "layernorm":
            normalised = nn.functional.layer_norm(hidden, hidden.shape[-1:], eps=EPS)
            return Posterior(normalised, None)
        mean, log_variance = hidden.float().chunk(2, dim=-1)
        return Posterior(mean, log_variance.clamp(-12.0, 4.0))

    def heads(self, latents: Float[Tensor, "cells latents channels"]) -> Heads:
        """Give what the likelihood needs to know of all genes, in float32.

        A rate belongs to a gene and not to a list of genes: all are decoded, and who wants some of them slices.
        """
        return {name: head.float() for name, head in self.decoder(latents).items()}

    def expected_counts(
        self, latents: Float[Tensor, "cells latents channels"], library_size: Float[Tensor, " cells"]
    ) -> Float[Tensor, "cells genes"]:
        """Mean of the counts that :meth:`sample_counts` draws, in UMI; see :meth:`Likelihood.expected_counts`."""
        return self.likelihood.expected_counts(self.heads(latents), library_size)

    def sample_counts(
        self,
        latents: Float[Tensor, "cells latents channels"],
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        dispersion_categories: Int64[Tensor, " cells"] | None = None,
        *,
        exact_depth: bool = False,
    ) -> SparseCounts:
        """Draw UMI counts of all genes, at least one for every cell; see :func:`sample_some_counts`.

        Parameters
        ----------
        latents
            Of the cells.
        library_size, rng, dispersion_categories
            As in :meth:`Likelihood.sample`.
        exact_depth
            The counts of a cell add up to its library size, a whole number; see :func:`sample_to_depth`.

        Raises
        ------
        UserError
            If what is decoded is not finite.
        """
        heads = self.heads(latents)
        if not bool(torch.stack([torch.isfinite(head).all() for head in heads.values()]).all()):
            raise UserError("what the autoencoder decodes is not finite: its weights or the latents are damaged.")
        draw = sample_to_depth if exact_depth else sample_some_counts
        return draw(self.likelihood, heads, library_size, rng, dispersion_categories)

    @torch.no_grad()
    def encode_arrays(
        self, batch: CellBatch
    ) -> tuple[Float32[np.ndarray, "cells state"], Float32[np.ndarray, "cells state"]]:
        """Posterior mean and log-variance, flattened token by token, as arrays."""
        posterior = self.encode(batch)
        mean = rearrange(posterior.mean, "b m c -> b (m c)").float().cpu().numpy()
        if posterior.log_variance is None:
            return mean, np.full_like(mean, DETERMINISTIC_LOG_VARIANCE)
        return mean, rearrange(posterior.log_variance, "b m c -> b (m c)").float().cpu().numpy()

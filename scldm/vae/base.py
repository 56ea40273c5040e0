"""What every layout of the autoencoder offers: an encoder and a decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from scldm.data.batch import CellBatch
from scldm.vae.counts.base import Heads

__all__ = ["Decoder", "Encoder"]


class Encoder(nn.Module, ABC):
    """Network from the counts of a cell to hidden tokens, as many as there are latents."""

    #: Whether an entry without a count is as good as none, so that counts can be thinned.
    ignores_zero_counts: bool = False

    @property
    def dropout_channels(self) -> int:
        """How many uniform numbers :meth:`forward` takes per cell in training; 0: it takes none."""
        return 0

    @abstractmethod
    def forward(
        self, batch: CellBatch, pooled_dropout: Float[Tensor, "cells channels"] | None = None
    ) -> Float[Tensor, "cells latents width"]:
        """Hidden latent tokens of every cell, before any bottleneck.

        Parameters
        ----------
        batch
            Cells.
        pooled_dropout
            Uniform numbers that decide which pooled channels are dropped; None drops nothing.
        """


class Decoder(nn.Module, ABC):
    """Network from latent tokens to the heads that a likelihood needs, for every gene of the schema."""

    @abstractmethod
    def forward(self, latents: Float[Tensor, "cells latents channels"]) -> Heads:
        """Give the heads that were asked for at construction, ``log_rate`` first."""

    def penalty(self, n_cells: int) -> Tensor | float:
        """Negative logarithm of a prior on the weights, in nats per training cell of which there are ``n_cells``."""
        return 0.0

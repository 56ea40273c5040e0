"""What every likelihood of counts offers: how surprising observed counts are, their mean, and how they are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from scldm.data.batch import CellBatch
from scldm.vae.counts.sparse import SparseCounts

__all__ = ["LOG_RATE", "Heads", "Likelihood", "scaled_shares"]

#: The head that every likelihood needs.
LOG_RATE = "log_rate"

Heads = dict[str, Float[Tensor, "cells genes"]]
"""What a decoder says about every gene of some cells, by the name of the head.

``log_rate`` is unnormalised: its softmax over the genes is each gene's share of the cell's expected counts.
"""


def scaled_shares(
    log_rates: Float[Tensor, "cells genes"], library_size: Float[Tensor, " cells"]
) -> Float[Tensor, "cells genes"]:
    """Share out the library size of every cell among its genes, in UMI: ``library_size * softmax(log_rates)``."""
    return log_rates.softmax(dim=-1) * library_size[:, None]


class Likelihood(nn.Module, ABC):
    """Distribution of the counts of a cell, given what the decoder says about every gene.

    A subclass is constructed from the number of genes and the number of categories that its dispersion may depend on.

    Attributes
    ----------
    heads
        Names of what the decoder has to provide for every (cell, gene), the log rate first. Every further head starts
        at zero in all cells and genes: where it has a level of its own, that is a parameter of the likelihood.
    """

    heads: ClassVar[tuple[str, ...]] = (LOG_RATE,)

    def __init__(self, n_genes: int, n_categories: int = 0) -> None:
        super().__init__()

    def negative_log_likelihood(
        self, heads: Heads, batch: CellBatch, categories: Int[Tensor, " cells"] | None = None
    ) -> Float[Tensor, " cells"]:
        """Negative log-likelihood of each cell in nats, summed over the genes that were measured in it.

        The expected counts of a cell are its library size, shared out among the genes that its store measured; the
        other genes have no share, and neither influence on the result nor gradient.

        Parameters
        ----------
        heads
            Of all genes of the schema.
        batch
            The observed cells. A gene that was not measured has no count.
        categories
            Codes of the attribute that the dispersion depends on, if it does; -1 is unlabelled.
        """
        measured = batch.measured_by_cell()
        if measured is not None:
            heads = {**heads, LOG_RATE: heads[LOG_RATE].masked_fill(~measured, -torch.inf)}
        return self._negative_log_likelihood(heads, batch, categories)

    @abstractmethod
    def _negative_log_likelihood(
        self, heads: Heads, batch: CellBatch, categories: Int[Tensor, " cells"] | None
    ) -> Float[Tensor, " cells"]:
        """As :meth:`negative_log_likelihood`, with log rates of -inf where a gene was not measured.

        Such a gene has a mean of zero and has to contribute a zero and no gradient, whatever its other parameters.
        """

    def expected_counts(self, heads: Heads, library_size: Float[Tensor, " cells"]) -> Float[Tensor, "cells genes"]:
        """Return the mean of the counts that :meth:`sample` draws, in UMI."""
        return scaled_shares(heads[LOG_RATE], library_size)

    @abstractmethod
    def sample_rates(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells genes"]:
        """Draw the rates behind the counts, in UMI: counts that are Poisson given these have the law of this class.

        Parameters
        ----------
        heads, library_size, rng, categories
            As in :meth:`sample`.
        """

    @abstractmethod
    def sample(
        self,
        heads: Heads,
        library_size: Float[Tensor, " cells"],
        rng: torch.Generator,
        categories: Int[Tensor, " cells"] | None = None,
    ) -> SparseCounts:
        """Draw UMI counts of all genes.

        Parameters
        ----------
        heads
            Of all genes of the schema.
        library_size
            What is shared out among the genes of each cell, in UMI.
        rng
            The only source of randomness, on the device of the heads.
        categories
            As in :meth:`negative_log_likelihood`.
        """

"""Counts of cells that are there: a cell without a single count is none, and every tool refuses it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from scldm.vae.counts.base import Heads, Likelihood
from scldm.vae.counts.sparse import SparseCounts

__all__ = ["sample_some_counts"]

#: After so many draws a cell that is still empty gets one count: the law of its counts, given that there are any, is
#: hardly another one then.
MOST_DRAWS = 100


@torch.no_grad()
def sample_some_counts(
    likelihood: Likelihood,
    heads: Heads,
    library_size: Float[Tensor, " cells"],
    rng: torch.Generator,
    categories: Int[Tensor, " cells"] | None = None,
) -> SparseCounts:
    """Draw counts given that every cell has at least one: what turns out empty is drawn again.

    Only cells of a few UMI are ever empty; all others are what :meth:`Likelihood.sample` draws, and need no more of
    the rng. All cells are drawn again together, so that a cell does not depend on how many others are empty.

    Parameters
    ----------
    likelihood, heads, library_size, rng, categories
        As in :meth:`scldm.vae.counts.base.Likelihood.sample`.
    """
    drawn = likelihood.sample(heads, library_size, rng, categories)
    n_cells, n_genes = drawn.shape
    empty = _are_empty(drawn)
    for _ in range(MOST_DRAWS):
        if not bool(empty.any()):
            return drawn
        again = likelihood.sample(heads, library_size, rng, categories)
        drawn = _merged(drawn, again.where(empty[again.entries // n_genes]))
        empty = _are_empty(drawn)
    if not bool(empty.any()):
        return drawn
    cells = empty.nonzero().squeeze(1)
    shares = likelihood.expected_counts(heads, library_size)[cells]
    genes = torch.multinomial(shares, 1, generator=rng).squeeze(1)
    single = SparseCounts(cells * n_genes + genes, torch.ones_like(genes, dtype=torch.float32), (n_cells, n_genes))
    return _merged(drawn, single)


def _are_empty(drawn: SparseCounts) -> Tensor:
    empty = torch.ones(drawn.shape[0], dtype=torch.bool, device=drawn.entries.device)
    empty[drawn.entries // drawn.shape[1]] = False
    return empty


def _merged(one: SparseCounts, other: SparseCounts) -> SparseCounts:
    """Put the counts of different cells together."""
    entries, order = torch.cat([one.entries, other.entries]).sort()
    return SparseCounts(entries, torch.cat([one.counts, other.counts])[order], one.shape)

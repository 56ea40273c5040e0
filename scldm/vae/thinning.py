"""Binomial thinning: a cell as it would have been sequenced less deeply."""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from scldm.data.batch import CellBatch
from scldm.nn.dropout import uniform_of

__all__ = ["binomial", "thin"]

#: Up to this count a binomial number is drawn exactly; beyond, from the normal distribution of its mean and variance.
EXACT_COUNT = 8


def thin(batch: CellBatch, kept: Float[Tensor, " cells"], seeds: Int64[Tensor, " cells"]) -> CellBatch:
    """Keep every molecule of a cell with the same probability.

    If the counts are Poisson, what is kept is independent of what is not, and is a cell of a lower depth. A cell of
    which nothing would be left stays as it is.

    Parameters
    ----------
    batch
        Cells.
    kept
        Probability of a molecule to be kept, for every cell.
    seeds
        Of :func:`scldm.nn.dropout.draw_seeds`: what is kept follows from the seed and the gene, not from the batch.

    Returns
    -------
    The same entries, of which some have no count any more, with the library sizes of what is left.
    """
    cells = batch.cell_ids()
    counts = binomial(batch.counts, kept[cells], uniform_of(seeds[cells], batch.gene_ids))
    library_size = _sums(counts, batch.offsets)
    empty = library_size < 1
    counts = torch.where(empty[cells], batch.counts, counts)
    return dataclasses.replace(batch, counts=counts, library_size=torch.where(empty, batch.library_size, library_size))


def binomial(
    n: Float32[Tensor, " entries"], p: Float[Tensor, " entries"], uniform: Float[Tensor, " entries"]
) -> Float32[Tensor, " entries"]:
    """Turn uniform numbers into binomial ones, by the inverse of the distribution.

    Up to ``n = 8`` it is exact. Beyond, it is the rounded normal number of the same mean and variance, between 0 and n.
    """
    p = p.clamp(max=1.0 - 1e-6)
    probability = (n.clamp(max=EXACT_COUNT) * torch.log1p(-p)).exp()
    odds, total, exact = p / (1 - p), torch.zeros_like(p), torch.zeros_like(p)
    for k in range(EXACT_COUNT):
        total = total + probability
        exact = exact + (uniform >= total)
        probability = probability * odds * ((n - k) / (k + 1)).clamp(min=0.0)
    normal = math.sqrt(2.0) * torch.erfinv((2 * uniform - 1).clamp(-0.999999, 0.999999))
    many = (n * p + normal * (n * p * (1 - p)).sqrt()).round().clamp(min=0.0)
    return torch.minimum(torch.where(n <= EXACT_COUNT, exact, many), n)


def _sums(values: Float32[Tensor, " entries"], offsets: Int64[Tensor, " cells_plus_one"]) -> Float32[Tensor, " cells"]:
    """Add up the entries of every cell: whole numbers, exactly and in the same way on every device."""
    running = torch.cat([torch.zeros(1, dtype=torch.float64, device=values.device), values.double().cumsum(0)])
    return running[offsets].diff().float()

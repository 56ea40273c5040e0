"""The generator to beat: every gene an independent negative binomial, one per combination of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.baselines.base import Baseline

__all__ = ["IndependentNegativeBinomial"]

# With fewer cells than this a label's own dispersions are noise: it borrows those pooled over all labels.
_MIN_CELLS_FOR_DISPERSION = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class IndependentNegativeBinomial(Baseline):
    """Independent negative binomials: mean = depth x rate[label, gene], variance = mean + dispersion x mean^2.

    Knows what each labelled population looks like on average and how much each gene varies in it, and nothing about
    genes that go together inside a population. A rate is the expected share of a cell's UMI counts; a dispersion (the
    reciprocal of the inverse dispersion) of zero is Poisson.
    """

    description: ClassVar[str] = "every gene by itself: a negative binomial per combination of labels"

    rates: Float[np.ndarray, "labels genes"]
    dispersions: Float[np.ndarray, "labels genes"]

    @classmethod
    def fit(cls, counts: csr_matrix, labels: Int[np.ndarray, " cells"]) -> IndependentNegativeBinomial:
        """Fit by the method of moments, given every cell's depth.

        With m = depth x rate, the dispersion is ``sum((count - m)^2 - m) / sum(m^2)`` over a label's
        cells, and not less than 0.
        """
        n_labels, n_cells = int(labels.max()) + 1, counts.shape[0]
        depths = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        member = csr_matrix((np.ones(n_cells), (labels, np.arange(n_cells))), shape=(n_labels, n_cells))
        squares = counts.astype(np.float64)
        squares.data **= 2
        total = (member @ counts).toarray().astype(np.float64)
        total_depth = (member @ depths)[:, None]
        total_squared_depth = (member @ depths**2)[:, None]
        depth_times_count = (member.multiply(depths).tocsr() @ counts).toarray()
        rates = total / np.maximum(total_depth, 1.0)
        # sum (count - m)^2, expanded so that only sums over the non-zero counts are needed
        residual = (member @ squares).toarray() - 2 * rates * depth_times_count + rates**2 * total_squared_depth
        excess, scale = residual - total, rates**2 * total_squared_depth
        dispersions = _ratio(excess, scale)
        few = np.bincount(labels, minlength=n_labels) < _MIN_CELLS_FOR_DISPERSION
        dispersions[few] = _ratio(excess.sum(axis=0), scale.sum(axis=0))
        return cls(rates=rates, dispersions=dispersions, labels=labels, depths=depths)

    def _counts(self, donors: Int[np.ndarray, " cells"], rng: np.random.Generator) -> np.ndarray:
        mean = self.depths[donors, None] * self.rates[self.labels[donors]]
        dispersion = self.dispersions[self.labels[donors]]
        shape = 1.0 / np.where(dispersion > 0, dispersion, 1.0)
        return rng.poisson(np.where(dispersion > 0, rng.gamma(shape) * mean / shape, mean))


def _ratio(excess: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Dispersion from its two sums; zero where a gene is silent or varies less than Poisson."""
    return np.clip(np.divide(excess, scale, out=np.zeros_like(excess), where=scale > 0), 0.0, None)

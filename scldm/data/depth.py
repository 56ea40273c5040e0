"""How deep the cells of a data set were sequenced, as a map between library sizes and a standard normal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri

__all__ = ["DepthStatistics"]

N_QUANTILES = 201

Numbers = float | int | np.number | np.ndarray | Sequence[float] | Sequence[int]


@dataclass(frozen=True)
class DepthStatistics:
    """Quantiles of the library sizes of the training cells.

    The prior models depth as *normal scores*: a library size is sent to the standard normal quantile of its rank among
    the training cells, so that a standard normal variate sent back has the depth distribution of the training data.

    Attributes
    ----------
    n_cells
        Number of training cells.
    quantiles
        Library sizes (UMI counts per cell) at evenly spaced probabilities from 0 to 1, never decreasing; the first is
        the smallest and the last the largest of the training data.
    """

    n_cells: int
    quantiles: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.asarray(self.quantiles)
        if self.n_cells < 1 or len(values) < 2 or not (values > 0).all() or (np.diff(values) < 0).any():
            raise ValueError("depth statistics need at least one cell and two or more positive, ordered quantiles")

    @classmethod
    def from_library_sizes(cls, library_sizes: Numbers) -> DepthStatistics:
        """Summarise library sizes (UMI counts per cell, all above zero)."""
        ordered = np.sort(np.asarray(library_sizes, dtype=np.float64))
        # Library sizes are integers and tie. The m cells that share a value are spread evenly over a width of one UMI
        # around it, so a heavily tied value keeps its share of the normal and its own score is that of its mid rank.
        value, first, size = np.unique(ordered, return_index=True, return_counts=True)
        rank_in_tie = np.arange(len(ordered)) - np.repeat(first, size)
        spread = np.repeat(value, size) - 0.5 + (rank_in_tie + 0.5) / np.repeat(size, size)
        quantiles = np.quantile(spread, np.linspace(0, 1, N_QUANTILES))
        quantiles = np.maximum.accumulate(np.clip(quantiles, ordered[0], ordered[-1]))
        quantiles[[0, -1]] = ordered[[0, -1]]
        return cls(n_cells=len(ordered), quantiles=tuple(quantiles.tolist()))

    @property
    def minimum(self) -> float:
        """Smallest library size of the training cells."""
        return self.quantiles[0]

    @property
    def maximum(self) -> float:
        """Largest library size of the training cells."""
        return self.quantiles[-1]

    @property
    def median(self) -> float:
        """Median library size of the training cells (to within half a UMI where cells tie)."""
        return float(np.quantile(self.quantiles, 0.5))

    def to_normal(self, library_size: Numbers) -> Float[np.ndarray, " ..."]:
        """Map library sizes to normal scores.

        Parameters
        ----------
        library_size
            UMI counts per cell, any shape. Outside the training range, the score is that of the nearer end.

        Returns
        -------
        float64 scores, strictly increasing in the library size inside the training range.
        """
        log_depth, scores = self._knots
        return np.asarray(np.interp(np.log(np.maximum(library_size, self.minimum)), log_depth, scores))

    def from_normal(self, scores: Numbers) -> Float[np.ndarray, " ..."]:
        """Map normal scores to library sizes: the inverse of ``to_normal``, never outside the training range.

        Parameters
        ----------
        scores
            Standard normal variates, any shape.

        Returns
        -------
        float64 library sizes, not rounded.
        """
        log_depth, knots = self._knots
        depth = np.exp(np.interp(np.asarray(scores, dtype=np.float64), knots, log_depth))
        return np.asarray(np.clip(depth, self.minimum, self.maximum))

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        """Log library sizes and their scores, both strictly increasing (one point if all cells are equally deep)."""
        # Rank 1 of n has the probability 1/(2n); probabilities 0 and 1 would be infinitely far out.
        margin = np.clip(0.5 / self.n_cells, 1e-6, 0.25)
        probability = margin + np.linspace(0, 1, len(self.quantiles)) * (1 - 2 * margin)
        scores = ndtri(probability)
        depth, first, size = np.unique(np.log(self.quantiles), return_index=True, return_counts=True)
        if len(depth) == 1:
            return depth, np.zeros(1)
        knots = np.add.reduceat(scores, first) / size
        # Everything beyond an end maps to that end, so a tied end takes the score on its inner side.
        knots[0], knots[-1] = scores[size[0] - 1], scores[first[-1]]
        return depth, knots

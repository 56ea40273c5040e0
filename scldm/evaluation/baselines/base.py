"""What every baseline is: fitted on training cells, asked for as many cells as needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy.sparse import csr_matrix

__all__ = ["BLOCK_CELLS", "Baseline", "draw_donors", "joint_labels"]

# Cells generated at a time: a block is dense, cells x genes.
BLOCK_CELLS = 256


class Baseline(ABC):
    """A generator that anybody could have written; fitted on training cells, it draws labels and depths from them."""

    description: ClassVar[str]

    @classmethod
    @abstractmethod
    def fit(cls, counts: csr_matrix, labels: Int[np.ndarray, " cells"]) -> Baseline:
        """Fit to training cells.

        Parameters
        ----------
        counts
            UMI counts of the training cells, cells x genes.
        labels
            Joint label code, 0 .. labels - 1; see `joint_labels`.
        """

    @abstractmethod
    def sample(self, n_cells: int, rng: np.random.Generator) -> tuple[csr_matrix, Int[np.ndarray, " cells"]]:
        """Generate cells.

        Parameters
        ----------
        n_cells
            How many.
        rng
            Source of all randomness.

        Returns
        -------
        UMI counts (cells x genes, float32) and, for every cell, the position of the training cell whose labels and
        depth it was given.
        """


def joint_labels(labels: pd.DataFrame) -> Int[np.ndarray, " cells"]:
    """Give the combinations of labels that occur a number each; a missing label is a label.

    Parameters
    ----------
    labels
        One column per condition, one row per cell; without columns all cells have the same code.

    Returns
    -------
    Codes 0 .. combinations - 1, in the order of the sorted combinations.
    """
    if not len(labels.columns):
        return np.zeros(len(labels), dtype=np.int64)
    return labels.groupby(list(labels.columns), dropna=False, observed=True).ngroup().to_numpy(dtype=np.int64)


def draw_donors(n_training: int, n_cells: int, rng: np.random.Generator) -> Int[np.ndarray, " cells"]:
    """Draw the training cell whose labels and depth each new cell takes; none twice unless more cells are wanted."""
    return rng.choice(n_training, n_cells, replace=n_cells > n_training)

"""What every baseline is: fitted on training cells, asked for as many cells as needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse import csr_matrix

__all__ = ["Baseline"]

# Cells generated at a time: a block is dense, cells x genes.
BLOCK_CELLS = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class Baseline(ABC):
    """A generator that anybody could have written; fitted on training cells, it draws labels and depths from them.

    Attributes
    ----------
    labels, depths
        Joint label code (see `scldm.evaluation.labels.joint_labels`) and library size (UMI counts) of every training
        cell.
    """

    description: ClassVar[str]

    labels: Int[np.ndarray, " cells"]
    depths: Float[np.ndarray, " cells"]

    @classmethod
    @abstractmethod
    def fit(cls, counts: csr_matrix, labels: Int[np.ndarray, " cells"]) -> Baseline:
        """Fit to UMI counts (cells x genes) of training cells and their joint label codes, 0 .. labels - 1."""

    def sample(self, n_cells: int, rng: np.random.Generator) -> tuple[csr_matrix, Int[np.ndarray, " cells"]]:
        """Generate cells; all randomness comes from `rng`.

        Returns
        -------
        UMI counts (cells x genes, float32) and, for every cell, the position of the training cell whose labels and
        depth it was given: none twice unless more cells are wanted than there are.
        """
        donors = rng.choice(len(self.labels), n_cells, replace=n_cells > len(self.labels))
        return self._generate(donors, rng), donors

    def _generate(self, donors: Int[np.ndarray, " cells"], rng: np.random.Generator) -> csr_matrix:
        """Generate a cell for every donor, block by block."""
        blocks = (donors[start : start + BLOCK_CELLS] for start in range(0, len(donors), BLOCK_CELLS))
        return sparse.vstack([csr_matrix(self._counts(block, rng), dtype=np.float32) for block in blocks], format="csr")

    @abstractmethod
    def _counts(self, donors: Int[np.ndarray, " cells"], rng: np.random.Generator) -> np.ndarray:
        """Generate the counts of a few cells, cells x genes."""

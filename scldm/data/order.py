"""Which cells come in which batch: a pure function of (seed, epoch, step), so that training can resume anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from scldm.errors import UserError
from scldm.seeds import permutation_rng

__all__ = ["BatchIndices", "EpochOrder"]


class EpochOrder:
    """A random order of all cells for every epoch, cut into batches, cut into ranks.

    The processes of a run share one order: at each step the ranks hold disjoint consecutive parts of the batch that a
    single process would have, so the number of processes does not change what is trained on.

    Parameters
    ----------
    n_cells
        Number of training cells.
    batch_size
        Cells per step over all processes. What is left after the last full batch of an epoch waits for another epoch;
        with fewer cells than one batch, every batch holds all cells.
    seed
        Any integer.
    rank, world_size
        This process and the number of processes.
    """

    def __init__(self, n_cells: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if n_cells < 1:
            raise UserError(f"there are {n_cells} cells to train on; at least one is needed")
        if batch_size < 1:
            raise UserError(f"the batch size is {batch_size}; it has to be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not below the number of processes {world_size}")
        if min(n_cells, batch_size) < world_size:
            raise UserError(
                f"a batch of {min(n_cells, batch_size)} cells cannot be shared by {world_size} processes; "
                "use a larger batch or fewer processes"
            )
        self.n_cells = n_cells
        self.batch_size = min(batch_size, n_cells)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._cached_epoch = -1
        self._cached_order = np.empty(0, dtype=np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.n_cells // self.batch_size

    def batch(self, epoch: int, step: int) -> Int64[np.ndarray, " cells"]:
        """Return the cells of this rank at a step of an epoch, both counted from 0."""
        if not 0 <= step < self.steps_per_epoch or epoch < 0:
            raise ValueError(f"step {step} of epoch {epoch} does not exist: epochs have {self.steps_per_epoch} steps")
        start = step * self.batch_size
        mine = slice(
            start + self.batch_size * self.rank // self.world_size,
            start + self.batch_size * (self.rank + 1) // self.world_size,
        )
        return self._order(epoch)[mine].copy()

    def _order(self, epoch: int) -> Int64[np.ndarray, " cells"]:
        if epoch != self._cached_epoch:
            self._cached_order = permutation_rng(self.seed, epoch).permutation(self.n_cells)
            self._cached_epoch = epoch
        return self._cached_order


class BatchIndices(Sampler[np.ndarray]):
    """The stream of batches of an order from a given point on, as the ``sampler`` of a ``DataLoader``.

    Parameters
    ----------
    order
        The order of cells.
    step
        Where to start, counted from the first batch of the first epoch.
    n_batches
        How many batches to yield; endless when None.
    """

    def __init__(self, order: EpochOrder, step: int = 0, n_batches: int | None = None) -> None:
        self.order = order
        self.first = step
        self.n_batches = n_batches

    def __iter__(self) -> Iterator[np.ndarray]:
        position = self.first
        while self.n_batches is None or position < self.first + self.n_batches:
            yield self.order.batch(*divmod(position, self.order.steps_per_epoch))
            position += 1

    def __len__(self) -> int:
        if self.n_batches is None:
            raise TypeError("an endless stream of batches has no length")
        return self.n_batches

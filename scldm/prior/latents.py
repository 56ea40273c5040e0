"""The latent store, in which every training cell is encoded once; the prior reads it through memory maps."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.utils.data import Dataset

from scldm.files import write_text

__all__ = ["EncodedCells", "LatentBatch", "LatentStatistics", "LatentStore"]


@dataclass(frozen=True, eq=False)
class EncodedCells:
    """Encoded cells as arrays, to be written into a :class:`LatentStore`.

    Attributes
    ----------
    mean, log_variance
        Of the Gaussian posterior, flattened token by token; ``[cells, latents * channels]``. A deterministic encoder
        has a log-variance so low that its noise vanishes in float32.
    depth
        Normal scores of the library sizes; ``[cells]``.
    categorical, continuous
        Attribute codes (-1 unlabelled) and standardised values (NaN unlabelled).
    """

    mean: Float32[np.ndarray, "cells latents"]
    log_variance: Float32[np.ndarray, "cells latents"]
    depth: Float32[np.ndarray, " cells"]
    categorical: Int64[np.ndarray, "cells n_categorical"]
    continuous: Float32[np.ndarray, "cells n_continuous"]


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """Encoded cells as tensors; the fields of :class:`EncodedCells`."""

    mean: Float32[Tensor, "cells latents"]
    log_variance: Float32[Tensor, "cells latents"]
    depth: Float32[Tensor, " cells"]
    categorical: Int64[Tensor, "cells n_categorical"]
    continuous: Float32[Tensor, "cells n_continuous"]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.depth.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LatentBatch:
        """Return the batch on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> LatentBatch:
        """Return the batch in page-locked memory; called by ``torch.utils.data.DataLoader``."""
        return self._map(lambda t: t.pin_memory())

    def slice(self, start: int, stop: int) -> LatentBatch:
        """Return the cells ``start:stop``."""
        return self._map(lambda t: t[start:stop])

    def _map(self, function) -> LatentBatch:  # type: ignore[no-untyped-def]
        return LatentBatch(*(function(getattr(self, f.name)) for f in dataclasses.fields(self)))


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Mean and standard deviation of every latent channel over the training cells, posterior noise included."""

    mean: Float[Tensor, " latents"]
    std: Float[Tensor, " latents"]

    def standardise(self, latents: Float[Tensor, "cells latents"]) -> Float[Tensor, "cells latents"]:
        """Return latents in the coordinates of the prior."""
        return (latents - self.mean) / self.std

    def restore(self, standardised: Float[Tensor, "cells latents"]) -> Float[Tensor, "cells latents"]:
        """Return standardised latents in the coordinates of the autoencoder."""
        return standardised * self.std + self.mean


class LatentStore(Dataset[LatentBatch]):
    """Encoded cells on disk, one ``.npy`` per field, read through memory maps.

    Build it with :meth:`write`; ``store[indices]`` is a :class:`LatentBatch`, so it serves a ``DataLoader`` with
    ``batch_size=None`` directly.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        arrays = {
            f.name: np.load(self.directory / f"{f.name}.npy", mmap_mode="r") for f in dataclasses.fields(EncodedCells)
        }
        self.cells = EncodedCells(**arrays)
        moments = json.loads((self.directory / "statistics.json").read_text())
        self.statistics = LatentStatistics(torch.tensor(moments["mean"]), torch.tensor(moments["std"]))

    @classmethod
    def write(cls, directory: str | os.PathLike[str], blocks: Iterable[EncodedCells], n_cells: int) -> LatentStore:
        """Write blocks of encoded cells one after the other and return the store.

        Parameters
        ----------
        directory
            Made if missing. The statistics are written last: a store without them is unfinished.
        blocks
            Encoded cells; only one block is in memory at a time.
        n_cells
            Cells of all blocks together.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "statistics.json").unlink(missing_ok=True)
        arrays: dict[str, np.memmap] = {}
        start, total, squares = 0, np.zeros(()), np.zeros(())
        for block in blocks:
            stop = start + len(block.depth)
            for field in dataclasses.fields(block):
                value = getattr(block, field.name)
                if field.name not in arrays:
                    arrays[field.name] = np.lib.format.open_memmap(
                        directory / f"{field.name}.npy", mode="w+", dtype=value.dtype, shape=(n_cells, *value.shape[1:])
                    )
                arrays[field.name][start:stop] = value
            mean = block.mean.astype(np.float64)
            total = total + mean.sum(0)
            squares = squares + (mean**2 + np.exp(block.log_variance.astype(np.float64))).sum(0)
            start = stop
        if start != n_cells:
            raise ValueError(f"{start} cells were written, {n_cells} announced")
        for array in arrays.values():
            array.flush()
        mean = total / n_cells
        # A channel that never moves (a collapsed posterior keeps its unit noise, a dead LayerNorm channel does not).
        std = np.sqrt(np.maximum(squares / n_cells - mean**2, 1e-8))
        write_text(directory / "statistics.json", json.dumps({"mean": mean.tolist(), "std": std.tolist()}))
        return cls(directory)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.cells.depth)

    def __len__(self) -> int:
        return self.n_cells

    def __getitem__(self, indices: Int64[np.ndarray, " cells"]) -> LatentBatch:
        """Return the cells at ``indices`` in that order."""
        return LatentBatch(
            *(
                torch.from_numpy(np.asarray(getattr(self.cells, f.name)[indices]))
                for f in dataclasses.fields(self.cells)
            )
        )

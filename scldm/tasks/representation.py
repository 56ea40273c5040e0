"""Cells as latents: what the autoencoder makes of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from scldm.data.source import CellSource
from scldm.errors import UserError
from scldm.prior.latents import EncodedCells
from scldm.trained import TrainedModel
from scldm.vae.model import VAE

__all__ = ["ENCODE_BATCH", "encode", "encoded_blocks"]

ENCODE_BATCH = 512


def encoded_blocks(
    vae: VAE, cells: CellSource, batch_size: int = ENCODE_BATCH, *, use_attributes: bool
) -> Iterator[EncodedCells]:
    """Encode cells batch by batch.

    Parameters
    ----------
    vae
        Trained, in evaluation mode.
    cells
        In the gene order of the model.
    batch_size
        Cells encoded at a time.
    use_attributes
        Whether the encoder is told the attributes of the cells, as far as they are known.
    """
    device = next(vae.parameters()).device
    for start in range(0, cells.n_cells, batch_size):
        batch = cells.batch(np.arange(start, min(start + batch_size, cells.n_cells)))
        seen = batch if use_attributes else batch.hide_attributes()
        mean, log_variance = vae.encode_arrays(seen.to(device))
        if not (np.isfinite(mean).all() and np.isfinite(log_variance).all()):
            raise UserError("the latents of some cells are not finite: the weights of the autoencoder are damaged.")
        depth = cells.schema.depth.to_normal(batch.library_size.numpy()).astype(np.float32)
        yield EncodedCells(mean, log_variance, depth, batch.categorical.numpy(), batch.continuous.numpy())


def encode(
    model: TrainedModel, cells: CellSource, batch_size: int = ENCODE_BATCH
) -> Float32[np.ndarray, "cells state"]:
    """Encode cells into the mean of their latent tokens, flattened: ``[cells, latents * channels]``.

    Attributes are not used, even where they are known: two cells with the same counts have the same latents.
    """
    return np.concatenate([block.mean for block in encoded_blocks(model.vae, cells, batch_size, use_attributes=False)])

"""The autoencoder by itself: cells through the bottleneck and back, to see what of a generator's error is its own."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from scldm.seeds import torch_rng
from scldm.tasks.cells import open_aligned
from scldm.torch_state import own_torch_defaults
from scldm.trained import TrainedModel

__all__ = ["reconstruct"]

BATCH_CELLS = 512


@own_torch_defaults()
@torch.inference_mode()
def reconstruct(model: TrainedModel, adata: ad.AnnData, *, layer: str | None = None, seed: int = 0) -> ad.AnnData:
    """Encode real cells, draw from their posteriors, decode, and draw counts at every cell's own depth.

    Nothing here comes from the prior: what these cells lack of real ones was lost in the autoencoder.

    Parameters
    ----------
    model
        The model.
    adata
        Real cells; genes are aligned by name, and attributes that the model has are used where the cells have them.
    layer
        Layer that holds the counts; None reads ``X``.
    seed
        Of the posterior draws and of the counts.

    Returns
    -------
    As many cells, with the ``obs`` of `adata`, over the genes of the model; integer UMI counts as float32 CSR in ``X``.

    Raises
    ------
    UserError
        If the cells cannot be read.
    """
    source = open_aligned(model, adata, layer=layer)
    device, attribute = model.device, model.dispersion_attribute
    blocks = []
    for number, start in enumerate(range(0, source.n_cells, BATCH_CELLS)):
        rng = torch_rng(seed, "reconstruct", number, device, model.config.seeding)
        batch = source.batch(np.arange(start, min(start + BATCH_CELLS, source.n_cells))).to(device)
        posterior = model.vae.encode(batch)
        latents = posterior.sample(torch.randn(posterior.mean.shape, generator=rng, device=device))
        category = None if attribute is None else batch.categorical[:, attribute]
        counts = model.vae.sample_counts(latents, batch.library_size, rng, category)
        blocks.append(counts.to_csr())
    var = pd.DataFrame(index=pd.Index(model.schema.genes, dtype=object))
    return ad.AnnData(sp.vstack(blocks, format="csr"), obs=adata.obs.copy(), var=var)

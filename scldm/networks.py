"""The two networks of a model, untrained, from its configuration and what is known of the data."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from scldm.config import RunConfig
from scldm.data.schema import DatasetSchema
from scldm.prior.dit import DiT
from scldm.vae.model import VAE

__all__ = ["build_prior", "build_vae", "dispersion_attribute", "parameter_counts"]


def dispersion_attribute(config: RunConfig, schema: DatasetSchema) -> int | None:
    """Find the position, among the categorical attributes, of the one that dispersion depends on; None if on none."""
    name = config.vae.dispersion_by
    return None if name is None else schema.categorical_names.index(name)


def build_vae(config: RunConfig, schema: DatasetSchema, gene_totals: Float[np.ndarray, " genes"] | None = None) -> VAE:
    """Build the autoencoder.

    Parameters
    ----------
    config, schema
        Of the model.
    gene_totals
        UMI counts of every gene over the training cells, where the rates start; None for one whose weights are loaded.
    """
    k = dispersion_attribute(config, schema)
    return VAE(
        config.vae,
        schema.n_genes,
        0 if k is None else schema.n_categories[k],
        gene_totals,
        schema.n_categories,
        len(schema.continuous),
    )


def build_prior(config: RunConfig, schema: DatasetSchema) -> DiT:
    """Build the diffusion transformer."""
    return DiT(
        config.vae.n_latents,
        config.vae.latent_channels,
        config.prior.width,
        config.prior.n_layers,
        config.prior.n_heads,
        schema.n_categories,
        len(schema.continuous),
        time_scale=config.prior.time_scale,
        dropout=config.prior.dropout,
    )


def parameter_counts(config: RunConfig, schema: DatasetSchema) -> dict[str, int]:
    """Count the weights of each stage, ``vae`` and ``prior``, without making them."""
    with torch.device("meta"):
        networks = {"vae": build_vae(config, schema), "prior": build_prior(config, schema)}
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}

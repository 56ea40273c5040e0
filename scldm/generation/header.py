"""Everything of a generated file that is known before its counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from scldm.generation.request import CHUNK_CELLS, GenerationRequest
from scldm.trained import TrainedModel
from scldm.version import __version__

__all__ = ["CellsHeader"]


#: Stands for a slash in the name of an attribute.
DIVISION_SLASH = "\u2215"


@dataclass(frozen=True, eq=False)
class CellsHeader:
    """What a generated file holds besides its counts and latents.

    Attributes
    ----------
    obs
        One row per cell, under a unique name, with the attributes asked for.
    genes
        Names of the columns.
    n_latent_channels
        Width of ``obsm["X_scldm"]``.
    uns
        Content of ``uns["scldm"]``: strings and numbers only.
    """

    obs: pd.DataFrame
    genes: tuple[str, ...]
    n_latent_channels: int
    uns: dict[str, Any]

    @classmethod
    def of(cls, model: TrainedModel, request: GenerationRequest) -> CellsHeader:
        """Describe the cells that a model generates for a request."""
        schema, vae = model.schema, model.config.vae
        guidance, first_cell = request.guidance.to_dict(), request.first_chunk * CHUNK_CELLS
        uns = {
            "version": __version__,
            "model_hash": model.fingerprint(),
            "conditions": ",".join(request.given),
            "depth": "generated" if request.depth is None else "given",
            "exact_depth": request.exact_depth,
            "guidance_mode": guidance["mode"],
            "guidance": _without_slashes(guidance["scales"]),
            "solver": request.solver,
            "steps": request.steps,
            "seed": request.seed,
            "n_cells": request.n_cells,
            "first_cell": first_cell,
        }
        obs = request.requested_obs(schema)
        obs.index = pd.Index([f"generated_{first_cell + i}" for i in range(request.n_cells)])
        genes = schema.genes if request.genes is None else tuple(schema.genes[i] for i in request.genes)
        return cls(obs, genes, vae.n_latents * vae.latent_channels, uns)

    def var(self) -> pd.DataFrame:
        """``var``: gene names only."""
        return pd.DataFrame(index=pd.Index(self.genes, dtype=object))


def _without_slashes(scales: object) -> object:
    """Return scales by names that are keys of HDF5: there, a slash would make a group of what is before it."""
    if not isinstance(scales, dict):
        return scales
    return {name.replace("/", DIVISION_SLASH): scale for name, scale in scales.items()}

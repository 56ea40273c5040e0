"""Given cells, in the gene order of a model."""

from __future__ import annotations

import os

import anndata as ad

from scldm.data.opening import open_source
from scldm.data.source import CellSource
from scldm.trained import TrainedModel

__all__ = ["open_aligned"]


def open_aligned(
    model: TrainedModel, adata: ad.AnnData | str | os.PathLike[str], *, layer: str | None = None
) -> CellSource:
    """Read cells in the gene order of a model; see ``source.coverage`` for how many genes they share.

    Parameters
    ----------
    model
        Whose genes and attributes to align to; an attribute that the cells lack is unknown.
    adata
        Cells with UMI counts, or the path of an ``.h5ad``.
    layer
        Layer that holds the counts; None reads ``X``.

    Raises
    ------
    UserError
        If the cells cannot be read, or share too few genes with the model.
    """
    return open_source(adata, layer=layer, schema=model.schema, missing_labels="unlabelled")

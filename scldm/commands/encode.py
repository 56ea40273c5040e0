"""``scldm encode``: latent representations of real cells."""

from __future__ import annotations

import os
from pathlib import Path

import anndata as ad

from scldm.commands.device import choose_device
from scldm.data.h5ad import open_h5ad, read_obs
from scldm.generation.writer import LATENTS_KEY, check_other_file, check_writable
from scldm.model import ScLDM

__all__ = ["encode"]


def encode(
    model_dir: Path,
    data: Path,
    output: Path,
    *,
    layer: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Write ``obs`` of the data with the latents in ``obsm["X_scldm"]``.

    Parameters
    ----------
    model_dir, data, output
        Model directory, cells with UMI counts, file to write.
    layer
        Layer of the counts; None reads ``X``.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    overwrite
        Replace an existing file.

    Raises
    ------
    UserError
        If the model or the data cannot be read, or share too few genes.
    """
    check_writable(output, overwrite)
    check_other_file(output, data)
    model = ScLDM.load(model_dir, choose_device(device))
    with open_h5ad(data) as file:
        obs = read_obs(file)
    source = model.open_aligned(data, layer=layer)
    print(source.coverage.sentence())
    encoded = ad.AnnData(obs=obs, obsm={LATENTS_KEY: model.encode(source)})
    encoded.uns["scldm"] = {"model_hash": model.hash(), "data": data.name}
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        encoded.write_h5ad(partial)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    n_cells, n_channels = encoded.obsm[LATENTS_KEY].shape
    print(f"wrote {output}: {n_cells:,} cells x {n_channels} latent channels")

"""``scldm encode``: latent representations of real cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from scldm.commands.options import choose_device
from scldm.files import atomic_file, check_file_can_be_made, check_is_another_file

__all__ = ["Encode"]


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Write latent representations of real cells to obsm["X_scldm"]."""

    model_dir: Annotated[Positional[Path], arg(metavar="MODEL_DIR")]
    """Model directory."""
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """The .h5ad with UMI counts; genes are aligned by name."""
    output: Path
    """The .h5ad to write: the obs of the data, and the latents."""
    layer: str | None = None
    """Layer that holds the counts; by default X."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    overwrite: bool = False
    """Replace an existing file."""

    def run(self) -> None:
        """Encode the cells and write the file."""
        check_file_can_be_made(self.output, self.overwrite)
        check_is_another_file(self.output, self.data)
        import anndata as ad

        from scldm.data.h5ad import open_h5ad, read_obs
        from scldm.data.writing import write_h5ad
        from scldm.generation.writer import LATENTS_KEY
        from scldm.storage.directory import read_model
        from scldm.tasks.cells import open_aligned
        from scldm.tasks.representation import encode

        model = read_model(self.model_dir, choose_device(self.device))
        with open_h5ad(self.data) as file:
            obs = read_obs(file)
        source = open_aligned(model, self.data, layer=self.layer)
        if not source.coverage.is_low:  # or it was said as a warning
            print(source.coverage.sentence())
        encoded = ad.AnnData(obs=obs, obsm={LATENTS_KEY: encode(model, source)})
        encoded.uns["scldm"] = {"model_hash": model.fingerprint(), "data": self.data.name}
        with atomic_file(self.output) as partial:
            write_h5ad(encoded, partial)
        n_cells, n_channels = encoded.obsm[LATENTS_KEY].shape
        print(f"wrote {self.output}: {n_cells:,} cells x {n_channels} latent channels")

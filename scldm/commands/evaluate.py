"""``scldm evaluate``: generated cells from any generator against held-out real ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anndata as ad

from scldm.commands.output import check_result_directory
from scldm.data.h5ad import open_h5ad
from scldm.errors import UserError
from scldm.evaluation import EvaluationReport, draw_overview, write_page
from scldm.evaluation import evaluate as judge
from scldm.evaluation.plots.embedding import Embedding
from scldm.model import ScLDM
from scldm.training.checkpoint import atomic_directory

__all__ = ["REPORT_FILES", "evaluate", "read_h5ad", "write_report"]

REPORT_FILES = {"metrics.json", "report.html", "figure.png"}


def evaluate(
    real: Path,
    generated: Path,
    output: Path,
    *,
    train: Path | None = None,
    conditions: Sequence[str] = (),
    layer: str | None = None,
    model: Path | None = None,
    profile: Literal["standard", "published"] = "standard",
    embedding: Embedding = "umap",
    seed: int = 0,
    max_cells: int = 5000,
    overwrite: bool = False,
) -> None:
    """Print the table and write ``metrics.json``, ``report.html`` and ``figure.png``.

    Parameters
    ----------
    real, generated, train
        ``.h5ad`` files; see :func:`scldm.evaluate`.
    output
        Directory to make.
    model
        Model directory whose latent space is one more space to measure distances in.
    embedding
        Picture of the cells in the report; ``pca`` takes no time.
    conditions, layer, profile, seed, max_cells
        See :func:`scldm.evaluate`.
    overwrite
        Replace earlier results.

    Raises
    ------
    UserError
        If a file cannot be judged, or ``output`` holds something else.
    """
    check_result_directory(output, REPORT_FILES, "an evaluation", overwrite)
    loaded = None if model is None else ScLDM.load(model)
    report = judge(
        read_h5ad(real),
        read_h5ad(generated),
        train=None if train is None else read_h5ad(train),
        conditions=conditions,
        layer=layer,
        model=loaded,
        profile=profile,
        seed=seed,
        max_cells=max_cells,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(output, overwrite=True) as partial:
        write_report(report, partial, embedding)
    print(report.table())
    print(f"\nwrote {', '.join(str(output / name) for name in sorted(REPORT_FILES))}")


def write_report(report: EvaluationReport, directory: Path, embedding: Embedding) -> None:
    """Write `REPORT_FILES` into an existing directory."""
    report.save(directory / "metrics.json")
    draw_overview(report, directory / "figure.png")
    write_page(report, directory / "report.html", embedding)


def read_h5ad(path: Path) -> ad.AnnData:
    """Read a whole file; raises ``UserError`` if that is not possible."""
    open_h5ad(path).close()
    with warnings.catch_warnings():
        # Repeated names: of cells they do not matter, of genes they become an error.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return ad.read_h5ad(path)
        except Exception as error:
            raise UserError(f"'{path}' cannot be read: {error}") from error

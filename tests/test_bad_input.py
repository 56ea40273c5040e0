"""Whatever a user gets wrong: exit status 2, one sentence on stderr that names it, and nothing left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import tiny
import yaml

from scldm.cli import main
from scldm.seals import write_sealed
from scldm.storage.directory import FILES, SEAL

# What the sentence must hold, by command line. Files are made by the functions below, in a directory of their own.
CASES: dict[str, tuple[str, ...]] = {
    # ---- which command, which options
    "trian": ("no command 'trian'", "did you mean 'train'?"),
    "--foo": ("no command '--foo'", "'evaluate'"),
    "sample model --output new.h5ad --sovler heun": ("no option '--sovler'", "'--solver'"),
    "sample model --output new.h5ad --n-cells": ("--n-cells needs a value",),
    "sample model --output new.h5ad --n-cells 3 --device tpu": ("--device is 'tpu'", "'cpu'"),
    "sample model --n-cells 3": ("scldm sample", "--output"),
    "sample --n-cells 3": ("scldm sample", "MODEL_DIR and --output"),
    "encode model --output new.h5ad": ("scldm encode", "DATA"),
    "evaluate cells.h5ad --output new": ("scldm evaluate", "GENERATED"),
    "info model model": ("'model' is one word too many",),
    "info --model": ("no option '--model'",),
    # ---- configuration
    "train": ("needs a configuration or data",),
    "train --output new": ("needs a configuration or data",),
    "train missing.yaml": ("no configuration file at 'missing.yaml'",),
    "train other": ("'other' is a directory",),
    "train cells.h5ad": ("'cells.h5ad' is data", "--data.path cells.h5ad"),
    "train broken.yaml": ("'broken.yaml' is not valid YAML", "line 2, column 4"),
    "train list.yaml": ("In 'list.yaml'", "mapping of keys to values"),
    "train unknown_key.yaml": ("In 'unknown_key.yaml'", "'vae.n_latent'", "'n_latents'"),
    "train wrong_type.yaml": ("In 'wrong_type.yaml'", "'vae.n_latents' must be", "'many'"),
    "train impossible.yaml": ("In 'impossible.yaml'", "vae.dropout is 2.0", "below 1"),
    "train indivisible.yaml": ("prior_training.batch_size is 10", "multiple of gradient_accumulation (3)"),
    "train no_path.yaml": ("no data.path", "'demo'"),
    "train dispersion.yaml": ("vae.dispersion_by is 'cell_type'", "['batch']"),
    "train run.yaml --output new --vae.n-latent 3": ("no option '--vae.n-latent'", "'--vae.n-latents'"),
    "train run.yaml --output new --vae.n-latents many": ("--vae.n-latents is 'many'", "a whole number"),
    "train run.yaml --output new --vae.kl-weight much": ("--vae.kl-weight is 'much'", "a number"),
    "train run.yaml --output new --vae.dropout 2": ("vae.dropout is 2.0", "below 1"),
    "train run.yaml --output new --vae.layout wid": ("--vae.layout is 'wid'", "did you mean 'wide'?"),
    "train run.yaml --output new --vae-training.cells 0": ("vae_training.cells is 0", "at least 1"),
    "train run.yaml --output new --prior-training.gradient-accumulation 7": (
        "prior_training.batch_size is 24",
        "gradient_accumulation (7)",
    ),
    "train run.yaml --output new --vae.dispersion-by donor": ("vae.dispersion_by is 'donor'", "data.conditions"),
    "train run.yaml --output new --seed -1": ("seed is -1",),
    "train run.yaml --output new --seed 99999999999999999999": ("seed is 99999999999999999999", "below 2^63"),
    "train run.yaml --output new --data.backed yes": ("'yes' is one word too many",),
    # ---- data
    "train run.yaml --output new --data.path missing.h5ad": ("no file 'missing.h5ad'",),
    "train run.yaml --output new --data.path other": ("'other' is a directory",),
    "train run.yaml --output new --data.path text.h5ad": ("'text.h5ad' is not an .h5ad file", "not HDF5"),
    "train run.yaml --output new --data.path plain.h5ad": ("'plain.h5ad' is an HDF5 file but not an .h5ad",),
    "train run.yaml --output new --data.path truncated.h5ad": ("'truncated.h5ad' cannot be read", "truncated"),
    "train run.yaml --output new --data.path logged_layer.h5ad": (
        "In 'logged_layer.h5ad': X holds values that are not integers",
        "log-normalised",
        "in layer 'counts'",
    ),
    "train run.yaml --output new --data.path logged.h5ad": ("X holds values that are not integers", "log-normalised"),
    "train run.yaml --output new --data.path logged.h5ad --data.backed": ("not integers", "log-normalised"),
    "train run.yaml --output new --data.path negative.h5ad": ("X holds negative values (-1)",),
    "train run.yaml --output new --data.path nan.h5ad": ("X holds 1 NaN",),
    "train run.yaml --output new --data.path nan.h5ad --data.backed": ("X holds 1 NaN",),
    "train run.yaml --output new --data.path infinite.h5ad": ("X holds 1 infinite",),
    "train run.yaml --output new --data.path empty_cells.h5ad": ("2 of 120 cells have no counts", "filter_cells"),
    "train run.yaml --output new --data.path no_cells.h5ad": ("0 cells and 60 genes",),
    "train run.yaml --output new --data.path no_genes.h5ad": ("120 cells and 0 genes",),
    "train run.yaml --output new --data.path duplicated.h5ad": ("'GENE1'", "more than once", "var_names_make_unique"),
    "train run.yaml --output new --data.path logged_layer.h5ad --data.layer cuonts": (
        "no layer 'cuonts'",
        "did you mean 'counts'?",
    ),
    "train run.yaml --output new --data.layer counts": ("no layer 'counts'", "has no layers"),
    "train run.yaml --output new --data.conditions celltype": ("no obs column 'celltype'", "did you mean 'cell_type'?"),
    "train run.yaml --output new --data.path unlabelled.h5ad": ("missing for 3 of 120 cells", "data.missing_labels"),
    "train run.yaml --output new --data.conditions age --data.continuous": ("'age'", "pass it as continuous"),
    "train run.yaml --output new --data.conditions age": ("'age'", "as categorical and as continuous"),
    "train run.yaml --output new --data.conditions batch batch": ("'batch' is named twice",),
    "train run.yaml --output new --data.path constant.h5ad": ("'age' is 1 in every cell",),
    "train run.yaml --output new --data.conditions --data.continuous cell_type": (
        "'cell_type' holds 'T cell'",
        "not a number",
    ),
    "train run.yaml --output new --data.group-by donor": ("no obs column 'donor'", "'cell_type', 'batch', 'age'"),
    "train run.yaml --output new --data.min-cells-per-gene 1000": ("1000 or more cells", "min_cells_per_gene"),
    "train run.yaml --output new --data.path one_donor.h5ad --data.group-by donor --dry-run": ("group_by",),
    # ---- what is in the way
    "train run.yaml --output model": ("'model' exists already", "--overwrite"),
    "train run.yaml --output model --dry-run": ("'model' exists already", "--overwrite"),
    "train run.yaml --output other": ("'other' exists and holds other things than a model",),
    "train run.yaml --output other --overwrite": ("'other' exists and holds other things than a model",),
    "train run.yaml --output text.h5ad": ("'text.h5ad' is a file",),
    "train run.yaml --output text.h5ad/new": ("'text.h5ad/new' cannot be made", "is a file"),
    "train run.yaml --output started": ("unfinished run in 'started.training' has another seed", "--overwrite"),
    "train run.yaml --output started --dry-run": ("unfinished run in 'started.training' has another seed",),
    "train run.yaml --output foreign": ("'foreign.training' exists and is not an unfinished run",),
    "train run.yaml --output cut": ("'cut.training/run.json' is damaged", "--overwrite"),
    "train run.yaml --output blocked": ("'blocked.training' exists and is not an unfinished run",),
    "sample model --output cells.h5ad --n-cells 3": ("'cells.h5ad' exists already", "--overwrite"),
    "sample model --output text.h5ad/new.h5ad --n-cells 3": ("cannot be written", "is a file"),
    "sample model --output new.csv --n-cells 3": ("'new.csv' must end in .h5ad",),
    "sample model --output cells.h5ad --like cells.h5ad --overwrite": ("'cells.h5ad' is the file that is read",),
    "encode model cells.h5ad --output logged.h5ad": ("'logged.h5ad' exists already", "--overwrite"),
    "encode model cells.h5ad --output cells.h5ad --overwrite": ("'cells.h5ad' is the file that is read",),
    "evaluate cells.h5ad cells.h5ad --output judged": ("'judged' exists already", "--overwrite"),
    "evaluate cells.h5ad cells.h5ad --output other --overwrite": ("'other' exists and holds other things",),
    "evaluate cells.h5ad cells.h5ad --output text.h5ad": ("'text.h5ad' is a file",),
    "evaluate cells.h5ad cells.h5ad --output text.h5ad/new": ("'text.h5ad/new' cannot be made", "is a file"),
    "demo --output shown": ("'shown' exists already", "--overwrite"),
    "demo --output other --overwrite": ("'other' exists and holds other things",),
    "demo --output text.h5ad/new": ("'text.h5ad/new' cannot be made", "is a file"),
    "demo --output new --seed -1": ("seed is -1",),
    # ---- model directories
    "info missing": ("no model directory 'missing'",),
    "sample missing --output new.h5ad --n-cells 3": ("no model directory 'missing'",),
    "encode other cells.h5ad --output new.h5ad": ("'other' is not a model directory", "config.json is missing"),
    "info cells.h5ad": ("'cells.h5ad' is a file, not a model directory",),
    "sample truncated_vae --output new.h5ad --n-cells 3": ("'truncated_vae/vae.safetensors' is damaged",),
    "sample truncated_prior --output new.h5ad --n-cells 3": ("'truncated_prior/prior.safetensors' is damaged",),
    "sample newer --output new.h5ad --n-cells 3": ("'newer' has format version 99", "update scldm"),
    "sample newer_schema --output new.h5ad --n-cells 3": ("schema has format version 99", "update scldm"),
    "info damaged_config": ("'damaged_config/config.json' is damaged", "not valid JSON"),
    "info no_summary": ("'no_summary/config.json' is damaged", "no entry 'training'"),
    "info listed": ("'listed/config.json'", "no format_version"),
    "info half_summary": ("'half_summary/config.json' is damaged", "summary of the training"),
    "info damaged_schema": ("'damaged_schema/schema.json' is damaged",),
    "sample fewer_genes --output new.h5ad --n-cells 3": ("'fewer_genes/vae.safetensors'", "(59, 16)"),
    "sample mixed --output new.h5ad --n-cells 3": ("'mixed' is damaged", "not of the same model"),
    # ---- requests
    "sample model --output new.h5ad": ("How many cells?", "--n-cells"),
    "sample model --output new.h5ad --n-cells 0": ("--n-cells is 0",),
    "sample model --output new.h5ad --n-cells -4": ("--n-cells is -4",),
    "sample model --output new.h5ad --n-cells many": ("--n-cells is 'many'", "a whole number"),
    "sample model --output new.h5ad --n-cells 1000000000000000": ("1 to 100,000,000 cells",),
    "sample model --output new.h5ad --n-cells 3 --steps 0": ("--steps is 0",),
    "sample model --output new.h5ad --n-cells 3 --steps two": ("--steps is 'two'", "a whole number"),
    "sample model --output new.h5ad --n-cells 3 --seed -1": ("--seed is -1",),
    "sample model --output new.h5ad --n-cells 3 --seed 18446744073709551616": ("below 2^63",),
    "sample model --output new.h5ad --n-cells 3 --batch-size 0": ("--batch-size is 0",),
    "sample model --output new.h5ad --n-cells 3 --part 2": ("the part '2'", "K/N"),
    "sample model --output new.h5ad --n-cells 3 --part 2/1": ("part 2 of 1 does not exist",),
    "sample model --output new.h5ad --n-cells 3 --part 1/2": ("cannot be cut into 2 parts", "it has 1"),
    "sample model --output new.h5ad --n-cells 3 --solver huen": ("unknown solver 'huen'", "did you mean 'heun'?"),
    "sample model --output new.h5ad --n-cells 3 --condition celltype=x": (
        "unknown attribute 'celltype'",
        "did you mean 'cell_type'?",
    ),
    "sample model --output new.h5ad --n-cells 3 --condition 'cell_type=B cel'": ("'B cel'", "did you mean 'B cell'"),
    "sample model --output new.h5ad --n-cells 3 --condition cell_type": ("condition 'cell_type'", "NAME=VALUE"),
    "sample model --output new.h5ad --n-cells 3 --condition cell_type=B cell": ("condition 'cell'", "NAME=VALUE"),
    "sample model --output new.h5ad --n-cells 3 --condition =one": ("condition '=one'", "NAME=VALUE"),
    "sample model --output new.h5ad --n-cells 3 --condition": ("--condition needs a value",),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one batch=two": ("'batch' is given twice",),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --condition batch=two": (
        "'batch' is given twice",
    ),
    "sample model --output new.h5ad --n-cells 3 --condition age=old": ("'age' holds 'old'", "not a number", "22.88"),
    "sample model --output new.h5ad --n-cells 3 --condition age=inf": ("'age' holds 3 infinite values", "22.8871 to"),
    "sample model --output new.h5ad --n-cells 3 --guidance much": ("guidance is 'much'", "a number"),
    "sample model --output new.h5ad --n-cells 3 --guidance": ("--guidance needs a value",),
    "sample model --output new.h5ad --n-cells 3 --guidance 2": ("nothing to guide by",),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --guidance -1": ("guidance", "-1"),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --guidance nan": ("guidance", "finite", "nan"),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --guidance 2 3": ("guidance '2'", "NAME=SCALE"),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --guidance batch=x": ("of 'batch' is 'x'",),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --guidance cell_type=2": (
        "guidance is set for 'cell_type'",
        "no value of 'cell_type' is asked for",
    ),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --guidance bach=2": (
        "unknown attribute 'bach'",
        "did you mean 'batch'?",
    ),
    "sample model --output new.h5ad --n-cells 3 --condition batch=one --guidance batch=2 --guidance-mode joint": (
        "joint guidance takes one number",
    ),
    "sample model --output new.h5ad --n-cells 3 --guidance-mode add": ("--guidance-mode is 'add'", "'additive'"),
    "sample model --output new.h5ad --n-cells 3 --depth 0": ("depth is 0", "at least 1"),
    "sample model --output new.h5ad --n-cells 3 --depth -5": ("depth is -5", "at least 1"),
    "sample model --output new.h5ad --n-cells 3 --depth deep": ("depth is 'deep'", "a number"),
    "sample model --output new.h5ad --n-cells 3 --depth 1e30": ("depth is 1e+30", "16,777,216"),
    "sample model --output new.h5ad --n-cells 3 --depth like": ("--depth like", "--like REAL.h5ad"),
    "sample model --output new.h5ad --n-cells 3 --layer counts": ("--layer", "--depth like"),
    "sample model --output new.h5ad --like logged_layer.h5ad --depth like": ("'logged_layer.h5ad'", "layer 'counts'"),
    "sample model --output new.h5ad --n-cells 3 --genes missing.txt": ("no file 'missing.txt'",),
    "sample model --output new.h5ad --n-cells 3 --genes cells.h5ad": ("'cells.h5ad' is not a text file",),
    "sample model --output new.h5ad --n-cells 3 --genes unknown.txt": ("unknown gene 'GENEX'", "did you mean"),
    "sample model --output new.h5ad --n-cells 3 --genes repeated.txt": ("'GENE1' is listed more than once",),
    "sample model --output new.h5ad --n-cells 3 --genes blank.txt": ("'blank.txt' is empty",),
    "sample model --output new.h5ad --like missing.h5ad": ("no file 'missing.h5ad'",),
    "sample model --output new.h5ad --like no_obs.h5ad": ("'no_obs.h5ad' has none of", "cell_type, batch, age"),
    "sample model --output new.h5ad --like no_cells.h5ad --n-cells 3": ("'no_cells.h5ad' has no cells",),
    "sample model --output new.h5ad --like misspelt.h5ad": ("In 'misspelt.h5ad'", "'T cel'", "'T cell'"),
    # ---- encoding and judging
    "encode model few_genes.h5ad --output new.h5ad": ("'few_genes.h5ad'", "20 of the 60 genes", "'GENE20'"),
    "encode model renamed.h5ad --output new.h5ad": ("0 of the 60 genes", "'ENSG0'", "'GENE0'"),
    "encode model logged_layer.h5ad --output new.h5ad": ("'logged_layer.h5ad'", "log-normalised", "layer 'counts'"),
    "encode model cells.h5ad --output new.h5ad --layer counts": ("no layer 'counts'",),
    "evaluate missing.h5ad cells.h5ad --output new": ("no file 'missing.h5ad'",),
    "evaluate cells.h5ad text.h5ad --output new": ("'text.h5ad' is not an .h5ad file",),
    "evaluate cells.h5ad cells.h5ad --train truncated.h5ad --output new": ("'truncated.h5ad' cannot be read",),
    "evaluate cells.h5ad renamed.h5ad --output new": ("generated cells share only 0 of the 60", "'ENSG0'", "'GENE0'"),
    "evaluate cells.h5ad logged.h5ad --output new": ("In the generated cells", "log-normalised"),
    "evaluate cells.h5ad duplicated.h5ad --output new": ("In the generated cells", "'GENE1'"),
    "evaluate cells.h5ad cells.h5ad --condition celltype --output new": ("'celltype'", "did you mean 'cell_type'?"),
    "evaluate no_obs.h5ad cells.h5ad --condition cell_type --output new": ("'cell_type'", "obs has no columns"),
    "evaluate cells.h5ad cells.h5ad --condition age --output new": ("'age' holds 120 different numbers",),
    "evaluate clones.h5ad cells.h5ad --condition clone --output new": ("holds 120 different values in 120 cells",),
    "evaluate few_cells.h5ad cells.h5ad --output new": ("Only 4 cells", "at least 10"),
    "evaluate cells.h5ad cells.h5ad --max-cells 0 --output new": ("At most 0 cells", "at least 10"),
    "evaluate cells.h5ad cells.h5ad --seed -1 --output new": ("seed is -1",),
    "evaluate cells.h5ad cells.h5ad --model missing --output new": ("no model directory 'missing'",),
    "evaluate cells.h5ad cells.h5ad --model truncated_vae --output new": ("'truncated_vae/vae.safetensors'",),
    "evaluate cells.h5ad cells.h5ad --profile paper --output new": ("--profile is 'paper'", "'published'"),
    "evaluate cells.h5ad cells.h5ad --embedding tsne --output new": ("--embedding is 'tsne'", "'umap'"),
    "evaluate cells.h5ad cells.h5ad --model model --profile published --output new": ("'published'", "takes no model"),
    # ---- benchmark: whatever can be known before the training is
    "benchmark --output new": ("scldm benchmark", "DATA"),
    "benchmark cells.h5ad": ("scldm benchmark", "--output"),
    "benchmark missing.h5ad --output new": ("no file 'missing.h5ad'",),
    "benchmark text.h5ad --output new": ("'text.h5ad' is not an .h5ad file",),
    "benchmark cells.h5ad --output benchmarked": ("'benchmarked' exists already", "--overwrite"),
    "benchmark cells.h5ad --output other --overwrite": ("'other' exists and holds other things",),
    "benchmark cells.h5ad --output text.h5ad/new": ("'text.h5ad/new' cannot be made", "is a file"),
    "benchmark cells.h5ad --condition celltype --output new": ("no obs column 'celltype'", "did you mean 'cell_type'?"),
    "benchmark cells.h5ad --condition cell_type --continuous years --output new": ("no obs column 'years'",),
    "benchmark cells.h5ad --condition age --output new": ("'age' holds 120 different numbers",),
    "benchmark cells.h5ad --condition --output new": ("--condition needs a value",),
    "benchmark cells.h5ad --group-by donor --output new": ("no obs column 'donor'", "'cell_type', 'batch', 'age'"),
    "benchmark one_donor.h5ad --group-by donor --output new": ("same label in group_by",),
    "benchmark unlabelled.h5ad --condition cell_type --output new": ("'cell_type' is missing for", "unlabelled"),
    "benchmark logged_layer.h5ad --output new": ("log-normalised", "layer 'counts'"),
    "benchmark cells.h5ad --layer counts --output new": ("no layer 'counts'",),
    "benchmark duplicated.h5ad --output new": ("In 'duplicated.h5ad'", "'GENE1'", "more than once"),
    "benchmark few_cells.h5ad --output new": ("Only 4 of 12 cells are held out", "at least 20", "--fraction"),
    "benchmark cells.h5ad --fraction 1 --output new": ("fraction of cells to hold out is 1.0", "between 0 and 1"),
    "benchmark cells.h5ad --max-cells 3 --output new": ("At most 3 cells", "at least 10"),
    "benchmark cells.h5ad --seed -1 --output new": ("seed is -1",),
    "benchmark cells.h5ad --seed 4294967296 --output new": ("seed is 4294967296", "below 2^32"),
    "benchmark cells.h5ad --config missing.yaml --output new": ("no configuration file at 'missing.yaml'",),
    "benchmark cells.h5ad --config unknown_key.yaml --output new": ("In 'unknown_key.yaml'", "'vae.n_latent'"),
    "benchmark cells.h5ad --scvi atuo --output new": ("--scvi is 'atuo'", "'auto'"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A directory with everything that the command lines name."""
    directory = tmp_path_factory.mktemp("bad-input")
    make_cells(directory)
    make_configurations(directory)
    make_models(directory, model_dir)
    (directory / "unknown.txt").write_text("GENE1\nGENEX\n")
    (directory / "repeated.txt").write_text("GENE1\nGENE2\nGENE1\n")
    (directory / "blank.txt").write_text("\n \n")
    for path, content in {
        "other/thesis.txt": "",
        "foreign.training/thesis.txt": "",
        "cut.training/run.json": '{"config": {"se',
        "judged/metrics.json": "{}",
        "shown/cells.h5ad": "",
        "benchmarked/table.md": "",
    }.items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_text(content)
    (directory / "blocked.training").write_text("")
    (directory / "started.training").mkdir()
    write_sealed(directory / "started.training" / "run.json", {"config": {"seed": 1}})
    return directory


def make_cells(directory: Path) -> None:
    def write(name: str, change: Callable[[ad.AnnData], ad.AnnData | None] | None = None) -> None:
        adata = tiny.tiny_adata()
        changed = change(adata) if change else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the very mistakes that are made here
            (adata if changed is None else changed).write_h5ad(directory / f"{name}.h5ad")

    def entry(value: float) -> Callable[[ad.AnnData], None]:
        def change(adata: ad.AnnData) -> None:
            dense = adata.X.toarray()
            dense[0, 0] = value
            adata.X = sp.csr_matrix(dense)

        return change

    def column(name: str, values: Any) -> Callable[[ad.AnnData], None]:
        def change(adata: ad.AnnData) -> None:
            adata.obs[name] = values

        return change

    def genes(name: Callable[[int], str]) -> Callable[[ad.AnnData], None]:
        def change(adata: ad.AnnData) -> None:
            adata.var_names = [name(i) for i in range(adata.n_vars)]

        return change

    def log(adata: ad.AnnData) -> None:
        adata.X = adata.X.log1p()

    def log_and_keep(adata: ad.AnnData) -> None:
        adata.layers["counts"] = adata.X.copy()
        log(adata)

    def empty_two(adata: ad.AnnData) -> None:
        adata.X = sp.diags_array((np.arange(adata.n_obs) > 1).astype(np.float32)).tocsr() @ adata.X

    def without_obs(adata: ad.AnnData) -> None:
        adata.obs = pd.DataFrame(index=adata.obs_names)

    labels = np.array(["B cell"] * 120, dtype=object)
    write("cells")
    write("logged", log)
    write("logged_layer", log_and_keep)
    write("negative", entry(-1))
    write("nan", entry(np.nan))
    write("infinite", entry(np.inf))
    write("empty_cells", empty_two)
    write("no_cells", lambda adata: adata[:0].copy())
    write("no_genes", lambda adata: adata[:, :0].copy())
    write("few_cells", lambda adata: adata[:12].copy())
    write("few_genes", lambda adata: adata[:, :20].copy())
    write("duplicated", genes(lambda i: f"GENE{1 if i == 2 else i}"))
    write("renamed", genes(lambda i: f"ENSG{i}"))
    write("no_obs", without_obs)
    write("clones", column("clone", [f"clone{i}" for i in range(120)]))
    write("unlabelled", column("cell_type", pd.Categorical(np.where(np.arange(120) < 3, None, labels))))
    write("misspelt", column("cell_type", np.where(np.arange(120) < 3, "T cel", labels)))
    write("constant", column("age", 1.0))
    write("one_donor", column("donor", "only"))
    (directory / "text.h5ad").write_text("not HDF5")
    with h5py.File(directory / "plain.h5ad", "w") as file:
        file["table"] = [1]
    whole = (directory / "cells.h5ad").read_bytes()
    (directory / "truncated.h5ad").write_bytes(whole[: len(whole) // 2])


def make_configurations(directory: Path) -> None:
    run = tiny.tiny_config(vae=tiny.tiny_vae()).to_dict()
    run["data"] |= {"path": "cells.h5ad", "conditions": ["cell_type", "batch"], "continuous": ["age"]}
    for name, text in {
        "run": yaml.safe_dump(run),
        "broken": "data: [path\nvae: }",
        "list": "- 1\n- 2\n",
        "unknown_key": "vae: {n_latent: 3}",
        "wrong_type": "vae: {n_latents: many}",
        "impossible": "vae: {dropout: 2}",
        "indivisible": "prior_training: {batch_size: 10, gradient_accumulation: 3}",
        "no_path": "seed: 1",
        "dispersion": "data: {path: cells.h5ad, conditions: [batch]}\nvae: {dispersion_by: cell_type}",
    }.items():
        (directory / f"{name}.yaml").write_text(text)


def make_models(directory: Path, model_dir: Path) -> None:
    def damage(name: str, file: str, change: Callable[[Any], Any] | None = None) -> None:
        """Copy the model with a JSON file changed, or with a file cut in half."""
        path = shutil.copytree(model_dir, directory / name) / file
        if change is None:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        else:
            path.write_text(json.dumps(change(json.loads(path.read_text()))))
            # As if it had been written so: what is wrong has to be found in the content.
            write_sealed(path.with_name(SEAL), {}, [path.with_name(other) for other in FILES])

    shutil.copytree(model_dir, directory / "model")
    damage("truncated_vae", "vae.safetensors")
    damage("truncated_prior", "prior.safetensors")
    damage("damaged_config", "config.json")
    damage("damaged_schema", "schema.json")
    damage("newer", "config.json", lambda content: content | {"format_version": 99})
    damage("newer_schema", "schema.json", lambda content: content | {"format_version": 99})
    damage("no_summary", "config.json", lambda content: {k: v for k, v in content.items() if k != "training"})
    damage("half_summary", "config.json", lambda content: content | {"training": content["training"] | {"vae": {}}})
    damage("listed", "config.json", lambda content: [content])
    damage("fewer_genes", "schema.json", lambda content: content | {"genes": content["genes"][:-1]})
    data = {"conditions": ["cell_type", "donor"]}
    damage(
        "mixed",
        "config.json",
        lambda content: (
            content
            | {
                "config": content["config"]
                | {
                    "data": content["config"]["data"] | data,
                    "vae": content["config"]["vae"] | {"dispersion_by": "donor"},
                }
            }
        ),
    )


def content(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file and directory below, hidden ones too, and when it was written."""
    return {str(p.relative_to(directory)): (p.stat().st_mtime_ns, p.stat().st_size) for p in directory.rglob("*")}


def check_sentence(stderr: str, parts: tuple[str, ...]) -> None:
    assert stderr.startswith("scldm: error: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    sentence = stderr.removeprefix("scldm: error: ").rstrip("\n")
    assert sentence[0].isupper() or sentence[0] in "'-", sentence
    assert sentence.endswith((".", "?"))
    assert not sentence.endswith(("..", "?."))
    assert "Traceback" not in sentence
    for part in parts:
        assert part.casefold() in sentence.casefold()


@pytest.mark.parametrize("line", CASES)
def test_mistake_is_told_in_one_sentence_and_leaves_nothing(line, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = content(place)
    with pytest.raises(SystemExit) as stop:
        main([*shlex.split(line)])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    check_sentence(captured.err, CASES[line])
    assert content(place) == before


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--data.path", "one_donor.h5ad", "--data.group-by", "donor"], "same label in group_by"),
        (["--vae-training.learning-rate", "1e30", "--prior.dropout", "0"], "training diverged"),
    ],
)
def test_training_that_fails_leaves_nothing_that_a_mended_one_would_trip_over(
    options, part, place, monkeypatch, capsys
):
    monkeypatch.chdir(place)
    before = content(place)
    with pytest.raises(SystemExit) as stop:
        main(["train", "run.yaml", "--output", "new", "--device", "cpu", *options])
    assert stop.value.code == 2
    *progress, error = capsys.readouterr().err.splitlines(keepends=True)
    check_sentence(error, (part,))
    assert not any("error" in line for line in progress)
    assert content(place) == before


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("trian", "did you mean 'train'?"),
        ("train unknown_key.yaml", "'vae.n_latent'"),
        ("sample missing --output new.h5ad --n-cells 3", "'missing'"),
    ],
)
def test_a_real_process_ends_with_status_2_and_the_sentence(line, part, place):
    before = content(place)
    process = subprocess.run(
        [sys.executable, "-m", "scldm", *shlex.split(line)],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.returncode == 2
    assert process.stdout == ""
    check_sentence(process.stderr, (part,))
    assert content(place) == before


def test_no_command_shows_what_there_is_on_stderr(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "evaluate" in captured.err


def test_scvi_that_is_not_installed_is_refused_before_the_training(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    before = content(place)
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "cells.h5ad", "--scvi", "yes", "--output", "new"])
    assert stop.value.code == 2
    check_sentence(capsys.readouterr().err, ("scvi-tools is not installed", "pip install scvi-tools"))
    assert content(place) == before

"""Faults that nobody was told of, each from end to end; `pytest tests/test_silent_faults.py` runs them all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import anndata as ad
import h5py
import matplotlib
import numpy as np
import pandas as pd
import pytest
import tiny
import torch

import scldm
from scldm.cli import main
from scldm.config import DataConfig
from scldm.data.schema import DatasetSchema
from scldm.errors import UserError
from scldm.evaluation import evaluate
from scldm.evaluation.material import gather
from scldm.generation.request import GenerationRequest
from scldm.model import ScLDM

DOSES = ("0.1", "1", "10")
T_CELLS = {"cell_type": "T cell"}


def dosed(kind: str, n_cells: int = 240) -> ad.AnnData:
    """Cells with one of three doses in a column of the given type, and nothing else in ``obs``."""
    adata = tiny.tiny_adata(n_cells)
    dose = pd.Series(np.array([0.1, 1.0, 10.0])[np.arange(n_cells) % 3], index=adata.obs_names)
    if kind == "bytes":
        dose = dose.map(lambda value: f"{value:g}".encode()).astype(object)
    elif kind == "category":
        dose = dose.astype("category")
    else:
        dose = dose.astype(kind)
    adata.obs = pd.DataFrame({"dose": dose})
    return adata


def status(*words: object) -> int:
    """Exit status of a command line in this process; any other exception is the fault."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def dry_run(path: Path, *more: object) -> int:
    return status("train", "--data.path", path, "--output", f"{path}.model", "--dry-run", "--device", "cpu", *more)


@pytest.fixture
def cells_file(tmp_path: Path) -> Path:
    path = tmp_path / "cells.h5ad"
    tiny.tiny_adata().write_h5ad(path)
    return path


# ---- Labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float64", "category", "float32"])
def test_the_judge_reads_the_labels_that_the_model_wrote(kind):
    """Cells that were generated as asked are not reported as never generated."""
    data = dosed(kind)
    train, held_out = data[:160].copy(), data[160:].copy()
    config = tiny.tiny_config(vae=tiny.tiny_vae(), data=DataConfig(conditions=("dose",)))
    model = ScLDM(train, config=config)
    model.train()
    made = model.sample(conditions=held_out.obs[["dose"]], steps=2)
    report = scldm.evaluate(held_out, made, train=train, conditions=["dose"])
    assert [f.sentence for f in report.findings if "No cell was generated" in f.sentence] == []
    assert sorted(made.obs["dose"].unique()) == list(DOSES)


@pytest.mark.parametrize("kind", ["float64", "float32", "category", "bytes"])
@pytest.mark.parametrize("asked", ["0.1", 0.1, np.float32(0.1), 10, 10.0, "10"])
def test_numbers_asked_for_are_the_numbers_of_the_column(kind, asked):
    adata = dosed(kind)
    schema = DatasetSchema.from_counts(adata.X, adata.var_names, adata.obs, ["dose"])
    assert schema.categorical[0].categories == DOSES
    request = GenerationRequest.build(schema, 2, conditions={"dose": asked})
    assert list(schema.categorical[0].decode(request.categorical[:, 0])) == [f"{float(asked):g}"] * 2


# ---- A resume --------------------------------------------------------------------------------------------------------


class StoppedError(Exception):
    """Ends a training from within."""


def started(adata: ad.AnnData, work: Path, stage: str | None) -> ScLDM:
    """Train in ``work``; stop at the fifth step of a stage, or never."""

    def on_step(name: str, step: int) -> None:
        if (name, step) == (stage, 8):
            raise StoppedError

    model = tiny.tiny_model(adata=adata)
    model.train(work, on_step=on_step)
    return model


def exchanged(adata: ad.AnnData) -> ad.AnnData:
    new = adata.copy()
    names = {"T cell": "B cell", "B cell": "T cell", "monocyte": "monocyte"}
    new.obs["cell_type"] = pd.Categorical(adata.obs["cell_type"].map(names), categories=tiny.CELL_TYPES)
    return new


def other_counts(adata: ad.AnnData) -> ad.AnnData:
    new = adata.copy()
    new.X = adata.X[:, ::-1].tocsr()
    return new


@pytest.mark.parametrize("change", [exchanged, other_counts, lambda adata: adata[::-1].copy()])
@pytest.mark.parametrize("stage", ["vae", "prior"])
def test_a_training_is_not_continued_on_other_data(tmp_path, change, stage):
    adata = tiny.tiny_adata()
    with pytest.raises(StoppedError):
        started(adata, tmp_path / "work", stage)
    with pytest.raises(UserError, match="unfinished run"):
        started(change(adata), tmp_path / "work", None)
    started(adata, tmp_path / "work", None)  # and the run goes on with what it was started with


# ---- Numbers that are not finite -------------------------------------------------------------------------------------


def test_a_guidance_that_overflows_is_refused(trained):
    with pytest.raises(UserError, match="guidance"):
        trained.sample(20, conditions=T_CELLS, guidance=1e30, steps=5)


@pytest.mark.parametrize("scale", [np.arange(1, 4)[1], np.float32(2), np.array(2.0), 2])
def test_a_guidance_may_be_any_kind_of_number(trained, scale):
    right = trained.sample(3, conditions=T_CELLS, guidance=2.0, steps=2)
    assert (trained.sample(3, conditions=T_CELLS, guidance=scale, steps=2).X != right.X).nnz == 0


# ---- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backed", [[], ["--data.backed"]])
def test_unsigned_indices_are_read(cells_file, backed):
    with h5py.File(cells_file, "r+") as file:
        for key in ("indices", "indptr"):
            values = file["X"][key][:]
            del file["X"][key]
            file["X"].create_dataset(key, data=values.astype("u8"))
    assert dry_run(cells_file, *backed) == 0


def without_encoding(file: h5py.File) -> None:
    for key in [k for k in file["X"].attrs if k.startswith("encoding")]:
        del file["X"].attrs[key]


def dangling(file: h5py.File) -> None:
    del file["X"]
    file["X"] = h5py.SoftLink("/nothing")


def index_out_of_range(file: h5py.File) -> None:
    file["X/indices"][5] = 4000


def pointer_out_of_range(file: h5py.File) -> None:
    file["X/indptr"][50] = 10**7


def half_precision(file: h5py.File) -> None:
    counts = tiny.tiny_adata().X.toarray()
    del file["X"]
    file["X"] = counts.astype("float16")
    file["X"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


@pytest.mark.parametrize(
    ("damage", "allowed"),
    [
        (without_encoding, {0, 2}),
        (dangling, {2}),
        (index_out_of_range, {2}),
        (pointer_out_of_range, {2}),
        (half_precision, {0}),
    ],
)
@pytest.mark.parametrize("backed", [[], ["--data.backed"]])
def test_a_damaged_file_ends_in_a_sentence(cells_file, tmp_path, damage, allowed, backed):
    with h5py.File(cells_file, "r+") as file:
        damage(file)
    # In a process of its own: a damaged pointer used to end it by a segmentation fault.
    words = ["train", "--data.path", cells_file, "--output", f"{cells_file}.model", "--dry-run", "--device", "cpu"]
    (code,) = tiny.in_processes(tiny.command, tmp_path / "log", *map(str, [*words, *backed]))
    assert code in allowed
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    assert code == 0 or str(cells_file) in said


def test_names_as_nullable_strings_are_read_and_written(model_dir, tmp_path):
    adata = tiny.tiny_adata()[:20].copy()
    with pd.option_context("future.infer_string", True), ad.settings.override(allow_write_nullable_strings=True):
        adata.obs.index = pd.Index([*map(str, adata.obs_names)])
        adata.var.index = pd.Index([*map(str, adata.var_names)])
        adata.write_h5ad(tmp_path / "new.h5ad")
    like = ("sample", model_dir, "--like", tmp_path / "new.h5ad", "--steps", 1, "--output", tmp_path / "made.h5ad")
    assert status(*like, "--device", "cpu") == 0
    encode = ("encode", model_dir, tmp_path / "new.h5ad", "--output", tmp_path / "latents.h5ad", "--device", "cpu")
    assert status(*encode) == 0
    assert list(ad.read_h5ad(tmp_path / "latents.h5ad").obs_names) == list(adata.obs_names)


# ---- Environment and options -----------------------------------------------------------------------------------------


def test_a_left_over_world_size_ends_in_a_sentence(model_dir, tmp_path):
    words = ["sample", model_dir, "--n-cells", "2", "--steps", "1", "--output", tmp_path / "made.h5ad"]
    run = subprocess.run(
        [sys.executable, "-m", "scldm", *words], env={**os.environ, "WORLD_SIZE": "2"}, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "unset WORLD_SIZE" in run.stderr
    assert "Traceback" not in run.stderr


def test_tracking_without_a_login_is_found_before_the_training(cells_file, monkeypatch, capsys):
    home = cells_file.parent / "home"
    home.mkdir()
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": home, "NETRC": home / "netrc", "WANDB_DIR": home, "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, str(value))
    output = cells_file.parent / "model"
    words = ("train", "--data.path", cells_file, "--output", output, "--device", "cpu", "--tracking.wandb")
    assert status(*words) == 2
    assert "wandb login" in capsys.readouterr().err
    assert sorted(p.name for p in cells_file.parent.iterdir()) == ["cells.h5ad", "home"]


def test_repeated_options_add_up(cells_file, capsys):
    assert dry_run(cells_file, "--data.conditions", "cell_type", "--data.conditions", "batch") == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("#") and "conditions" in line)
    assert "cell_type" in said
    assert "batch" in said


def test_names_in_the_docstring_of_sample_exist():
    assert "scldm.generation.GenerationRequest.build" in ScLDM.sample_to_file.__doc__
    assert scldm.generation.GenerationRequest is GenerationRequest


# ---- Advice that leads somewhere -------------------------------------------------------------------------------------


def test_counts_in_a_layer_of_one_file_only_can_be_judged():
    real, made = tiny.tiny_adata(), tiny.tiny_adata(seed=1)
    made.layers["counts"] = made.X.copy()
    made.X = made.X.log1p()
    with pytest.raises(UserError, match="layer"):
        scldm.evaluate(real, made)
    assert scldm.evaluate(real, made, layer="counts").metrics


def test_cells_at_a_very_small_depth_can_be_encoded(trained):
    with pytest.warns(UserWarning, match="outside the range"):
        made = trained.sample(50, depth=2, steps=2)
    assert (np.asarray(made.X.sum(axis=1)) > 0).all()
    assert np.isfinite(trained.get_latent_representation(made)).all()


# ---- Cells and genes that are not what they seem ---------------------------------------------------------------------


@pytest.mark.parametrize("repeated", [False, True])
def test_held_out_cells_that_were_trained_on_are_announced(repeated):
    train, made = tiny.tiny_adata(300), tiny.tiny_adata(300, seed=1)
    names = [f"AAAC{i}-1" for i in range(300)]
    if repeated:
        names[299] = names[0]
    train.obs_names = names
    options = {"conditions": ["cell_type"], "layer": None, "halves": True, "seed": 0, "max_cells": 5000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's, about names that are not unique
        notes = gather(train[:150].copy(), {"generated": made}, train, **options).notes
    assert any("training cells" in note for note in notes)


def test_genes_that_are_named_otherwise_are_announced(trained):
    adata = tiny.tiny_adata()
    adata.var_names = [name if i % 3 else f"{name}.1" for i, name in enumerate(adata.var_names)]
    with pytest.warns(UserWarning, match="genes"):
        trained.get_latent_representation(adata)


# ---- What belongs to the caller --------------------------------------------------------------------------------------


def test_the_caller_keeps_the_random_state():
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(1).item()
        torch.manual_seed(seed)
        tiny.tiny_model().train()
        drawn.append(torch.rand(1).item())
        assert drawn[-1] == expected
    assert drawn[0] != drawn[1]


def test_nothing_that_is_the_callers_changes(tmp_path):
    from matplotlib import pyplot

    def state() -> dict[str, object]:
        name, keys, *rest = np.random.get_state()
        return {
            "torch": torch.get_rng_state().tolist(),
            "numpy": (name, keys.tolist(), *rest),
            # The numbers of random are drawn by beartype, too, which looks at arguments while tests run.
            "types": (torch.get_default_dtype(), torch.is_grad_enabled(), np.geterr()),
            "threads": torch.get_num_threads(),
            "handlers": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            "figures": pyplot.get_fignums(),
            "settings": dict(matplotlib.rcParams),
            "directory": os.getcwd(),
        }

    adata = tiny.tiny_adata()
    model = tiny.tiny_model(adata=adata)
    actions = {
        "train": model.train,
        "sample": lambda: model.sample(20, conditions=T_CELLS, steps=2),
        "save": lambda: model.save(tmp_path / "model", overwrite=True),
        "load": lambda: ScLDM.load(tmp_path / "model", device="cpu"),
        "encode": lambda: model.get_latent_representation(adata),
        "evaluate": lambda: evaluate(adata, adata, conditions=["cell_type"], n_permutations=39, max_cells=40),
    }
    for act in actions.values():
        act()  # what is imported on the way may draw numbers
    before = state()
    for name, act in actions.items():
        act()
        after = state()
        assert [what for what in before if after[what] != before[what]] == [], name


def test_the_default_dtype_of_the_caller_changes_no_cell(trained, model_dir, monkeypatch):
    def ask(model: ScLDM) -> ad.AnnData:
        return model.sample(20, conditions=T_CELLS, seed=4, steps=5)

    first = ask(trained)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert (ask(trained).X != first.X).nnz == 0
        assert (ask(ScLDM.load(model_dir, device="cpu")).X != first.X).nnz == 0
    finally:
        torch.set_default_dtype(before)

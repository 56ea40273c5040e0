from __future__ import annotations

import dataclasses
import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tiny

from scldm.commands import demo as demo_command
from scldm.config import DataConfig, RunConfig

# encode ---------------------------------------------------------------------------------------------------------------


def test_encode_keeps_obs_and_aligns_genes(run, model_dir, trained, cells_file, tmp_path):
    real = ad.read_h5ad(cells_file)
    out, err = run("encode", model_dir, cells_file, "--output", tmp_path / "a.h5ad", "--device", "cpu")
    encoded = ad.read_h5ad(tmp_path / "a.h5ad")
    assert "all 60 genes of the model are in the data" in out
    assert err == ""
    pd.testing.assert_frame_equal(encoded.obs, real.obs)
    assert encoded.obsm["X_scldm"].shape == (120, 8)
    assert encoded.obsm["X_scldm"].dtype == np.float32
    np.testing.assert_array_equal(encoded.obsm["X_scldm"], trained.get_latent_representation(real))
    assert encoded.uns["scldm"] == {"model_hash": trained.hash(), "data": "cells.h5ad"}

    # Genes in another order, one of them missing, one unknown, in a layer.
    other = real[:, np.random.default_rng(0).permutation(60)[:-1]].copy()
    other.var_names = [*other.var_names[:-1], "UNKNOWN"]
    other.layers["counts"], other.X = other.X.copy(), other.X.log1p()
    other.write_h5ad(tmp_path / "other.h5ad")
    words = ("encode", model_dir, tmp_path / "other.h5ad", "--output", tmp_path / "b.h5ad", "--device", "cpu")
    out, _ = run(*words, "--layer", "counts")
    assert "58 of the 60 genes" in out
    assert "were not measured" in out
    latents = ad.read_h5ad(tmp_path / "b.h5ad").obsm["X_scldm"]
    assert np.corrcoef(latents.ravel(), encoded.obsm["X_scldm"].ravel())[0, 1] > 0.9
    run(*words, "--layer", "counts", "--overwrite")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5ad", "b.h5ad", "other.h5ad"]


# evaluate -------------------------------------------------------------------------------------------------------------


def test_evaluate_writes_numbers_a_page_and_a_figure(run, tmp_path, request):
    for name, seed in (("real", 0), ("generated", 1), ("train", 2)):
        tiny.tiny_adata(seed=seed).write_h5ad(tmp_path / f"{name}.h5ad")
    words = ["evaluate", tmp_path / "real.h5ad", tmp_path / "generated.h5ad", "--output", tmp_path / "out" / "judged"]
    words += ["--train", tmp_path / "train.h5ad", "--condition", "cell_type", "batch", "--max-cells", 40]
    words += ["--embedding", "pca"]
    out, err = run(*words)
    assert err == ""
    judged = tmp_path / "out" / "judged"
    assert {p.name for p in judged.iterdir()} == {"metrics.json", "report.html", "figure.png"}
    assert (judged / "figure.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((judged / "metrics.json").read_text())
    systems = [system["name"] for system in metrics["systems"]]
    assert systems == ["ceiling", "generated", "independent_nb", "pca_gaussian", "memoriser"]
    assert metrics["conditions"] == ["cell_type", "batch"]
    assert metrics["n_cells"] == 40
    assert {record["system"] for record in metrics["records"]} == set(systems)
    assert {record["metric"] for record in metrics["records"]} == {metric["name"] for metric in metrics["metrics"]}
    for record in metrics["records"]:
        assert record["metric"] in out
    request.getfixturevalue("quick_pictures")
    run(*words, "--overwrite", "--seed", 1)
    assert json.loads((judged / "metrics.json").read_text())["seed"] == 1
    assert [p.name for p in judged.parent.iterdir()] == ["judged"]
    page = (judged / "report.html").read_text()
    assert all(metric["name"] in page for metric in metrics["metrics"])


@pytest.mark.usefixtures("quick_pictures")
def test_evaluate_in_the_latent_space_of_a_model_and_by_the_published_recipe(run, tmp_path, model_dir):
    for name, seed in (("real", 0), ("generated", 1)):
        tiny.tiny_adata(seed=seed).write_h5ad(tmp_path / f"{name}.h5ad")
    words = ["evaluate", tmp_path / "real.h5ad", tmp_path / "generated.h5ad", "--embedding", "pca", "--max-cells", 20]
    run(*words, "--output", tmp_path / "latent", "--model", model_dir)
    metrics = json.loads((tmp_path / "latent" / "metrics.json").read_text())
    assert list(metrics["spaces"]) == ["pca", "hvg", "latent"]
    values = {(r["metric"], r["space"]): r["value"] for r in metrics["records"] if r["system"] == "generated"}
    assert values["frechet_distance", "latent"] != values["frechet_distance", "pca"]
    run(*words, "--output", tmp_path / "published", "--profile", "published")
    metrics = json.loads((tmp_path / "published" / "metrics.json").read_text())
    assert metrics["profile"] == "published"
    assert "mmd2_published" in {metric["name"] for metric in metrics["metrics"]}


# info -----------------------------------------------------------------------------------------------------------------


def test_info_tells_what_can_be_asked_for(run, model_dir):
    out, err = run("info", model_dir)
    assert err == ""
    assert out.rstrip() == (model_dir / "model_card.md").read_text().rstrip()
    for part in ("cell_type", "T cell", "B cell", "monocyte", "batch", "age", "continuous", "60 genes"):
        assert part in out


# demo -----------------------------------------------------------------------------------------------------------------


def test_demo_runs_the_whole_chain(run, tmp_path, monkeypatch):
    config = tiny.tiny_config(
        data=DataConfig(path="demo", conditions=("cell_type", "phase")),
        vae=tiny.tiny_vae(),
        vae_training=tiny.tiny_training(cells=240),
        prior_training=tiny.tiny_training(cells=240),
    )
    monkeypatch.setattr(demo_command, "DEMO_CONFIG", config)
    output = tmp_path / "demo"
    out, err = run("demo", "--output", output, "--seed", 2)
    assert {p.name for p in output.iterdir()} == demo_command.FILES
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    cells, held_out = ad.read_h5ad(output / "cells.h5ad"), ad.read_h5ad(output / "held_out.h5ad")
    train = ad.read_h5ad(output / "train.h5ad")
    assert (train.n_obs, held_out.n_obs, cells.n_obs) == (490, 210, 420)
    asked, wanted = (obs[["cell_type", "phase"]].astype(str).value_counts() for obs in (cells.obs, held_out.obs))
    assert asked.to_dict() == (2 * wanted).to_dict()
    assert not set(train.obs_names) & set(held_out.obs_names)
    assert cells.obs.columns.tolist() == ["cell_type", "phase"]
    systems = json.loads((output / "metrics.json").read_text())["systems"]
    assert systems[-1]["name"] == "memoriser"
    stored = json.loads((output / "model" / "config.json").read_text())["config"]
    assert stored["seed"] == 2
    assert "490 cells to train on" in err
    # The next command that it proposes works.
    assert f"scldm sample {output / 'model'} --n-cells 500 --condition cell_type='CD19+ B' --output b_cells.h5ad" in out
    run("sample", output / "model", "--n-cells", 5, "--condition", "cell_type=CD19+ B", "--output", tmp_path / "b.h5ad")


def test_demo_shows_the_defaults_but_for_the_length_of_the_prior():
    config, defaults = demo_command.DEMO_CONFIG, RunConfig()
    assert config.prior_training.cells < defaults.prior_training.cells
    length = dataclasses.replace(config.prior_training, cells=defaults.prior_training.cells)
    assert dataclasses.replace(config, data=DataConfig(), prior_training=length) == defaults

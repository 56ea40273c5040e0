from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pytest
import tiny
import yaml

from scldm import benchmark as command
from scldm.benchmark import FILES
from scldm.cli import main
from scldm.evaluation import EvaluationReport

SYSTEMS = ["ceiling", "scldm", "autoencoder", "autoencoder_of_training", "independent_nb", "pca_gaussian", "memoriser"]


@pytest.fixture
def config_file(tmp_path):
    run = tiny.tiny_config(
        vae=tiny.tiny_vae(),
        vae_training=tiny.tiny_training(cells=240),
        prior_training=tiny.tiny_training(cells=240),
        seed=3,
    ).to_dict()
    run["data"] |= {"path": "elsewhere.h5ad", "conditions": ["batch"], "backed": True, "validation_fraction": 0.2}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


@pytest.fixture
def donors_file(tmp_path):
    cells = tiny.tiny_adata(n_cells=200)
    cells.obs["donor"] = np.array([f"donor{i % 10}" for i in range(200)])
    cells.layers["counts"], cells.X = cells.X.copy(), cells.X.log1p()
    path = tmp_path / "donors.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.mark.usefixtures("quick_pictures")
def test_everything_is_judged_in_one_run(run, tmp_path, donors_file, config_file):
    output = tmp_path / "results" / "tiny"
    words = ["benchmark", donors_file, "--config", config_file, "--output", output, "--layer", "counts"]
    words += ["--condition", "cell_type", "batch", "--continuous", "age", "--group-by", "donor", "--scvi", "no"]
    words += ["--fraction", 0.4, "--embedding", "pca", "--device", "cpu", "--max-cells", 30]
    out, err = run(*words)
    assert {p.name for p in output.iterdir()} == FILES
    assert [p.name for p in output.parent.iterdir()] == ["tiny"]
    for part in ("cells to train on", "training: ", "sampling: ", "autoencoder: ", "judging: "):
        assert part in err
    assert "warning" not in err

    train, held_out = (ad.read_h5ad(output / f"{name}.h5ad") for name in ("train", "held_out"))
    cells = ad.read_h5ad(output / "cells.h5ad")
    assert train.n_obs + held_out.n_obs == 200
    assert not set(train.obs["donor"]) & set(held_out.obs["donor"])
    assert held_out.obs["donor"].nunique() == 4
    # The attributes of every held-out cell, each equally often.
    columns = ["cell_type", "batch", "age"]
    asked, wanted = (
        obs[columns].astype({"age": "float32"}).round(3).value_counts().sort_index()
        for obs in (cells.obs, held_out.obs)
    )
    copies = cells.n_obs // held_out.n_obs
    assert asked.index.tolist() == wanted.index.tolist()
    assert (asked == copies * wanted).all()

    report = EvaluationReport.load(output / "metrics.json")
    assert list(report.systems.names) == SYSTEMS
    assert report.generators == ("scldm", "autoencoder", "autoencoder_of_training")
    assert report.conditions == ("cell_type", "batch")
    assert report.n_cells == 30
    assert report.seed == 3
    assert "latent" in report.spaces
    # The table has every metric of every system, as in the file.
    header, _, *rows = (output / "table.md").read_text().splitlines()
    assert [column.strip() for column in header.strip("|").split("|")] == ["metric", "best", *SYSTEMS]
    assert [row.split("|")[1].strip() for row in rows] == [row.label for row in report.rows]
    ceiling = next(row for row in rows if row.startswith("| frechet_distance |")).split("|")[3]
    assert float(ceiling.split("[")[0]) == pytest.approx(report.value("frechet_distance", "ceiling"), abs=0.006)

    summary = json.loads((output / "summary.json").read_text())
    assert set(summary["seconds"]) == {"training", "sampling", "autoencoder", "judging"}
    assert summary["seconds"]["training"] > 0
    assert (summary["n_training_cells"], summary["n_held_out_cells"]) == (train.n_obs, held_out.n_obs)
    assert summary["threads"] == 1
    stored = json.loads((output / "model" / "config.json").read_text())["config"]
    assert stored == summary["config"]
    assert stored["data"] == {
        "path": None,
        "layer": "counts",
        "conditions": ["cell_type", "batch"],
        "continuous": ["age"],
        "missing_labels": "error",
        "min_cells_per_gene": 3,
        "validation_fraction": 0.2,
        "group_by": "donor",
        "backed": False,
        "unpack": True,
    }
    for row in report.rows:
        assert row.label in out


@pytest.mark.usefixtures("quick_pictures")
def test_the_configuration_says_what_the_options_do_not_and_the_seed_decides_everything(
    run, tmp_path, cells_file, config_file
):
    words = ["benchmark", cells_file, "--config", config_file, "--output", tmp_path / "out", "--embedding", "pca"]
    run(*words, "--scvi", "no", "--device", "cpu")
    first = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert first["conditions"] == ["batch"]
    assert first["seed"] == 3
    kept = ad.read_h5ad(tmp_path / "out" / "cells.h5ad")
    run(*words, "--scvi", "no", "--device", "cpu", "--overwrite")
    # The same seed gives the same model, cells and metrics.
    assert (ad.read_h5ad(tmp_path / "out" / "cells.h5ad").X != kept.X).nnz == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "tiny.yaml"]


@pytest.mark.usefixtures("quick_pictures")
@pytest.mark.parametrize("stopped_in", ["evaluate", "write_results"])
def test_a_benchmark_that_is_stopped_leaves_its_training_and_nothing_else(
    stopped_in, run, tmp_path, cells_file, config_file, monkeypatch, capsys
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    output = tmp_path / "results" / "out"
    words = ["benchmark", cells_file, "--config", config_file, "--output", output]
    words += ["--scvi", "no", "--embedding", "pca", "--device", "cpu"]
    with monkeypatch.context() as patched:
        patched.setattr(command, stopped_in, stop)
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
    assert ended.value.code == 130
    assert [p.name for p in output.parent.iterdir()] == ["out.training"]
    with pytest.raises(SystemExit):
        main([str(word) for word in [*words, "--seed", 5]])
    assert "unfinished run in" in capsys.readouterr().err
    # The same command goes on where it was, and the training is as if it had never been stopped.
    _, err = run(*words)
    assert "continuing the training in" in err
    assert [p.name for p in output.parent.iterdir()] == ["out"]
    assert json.loads((output / "summary.json").read_text())["continued"] is True


def test_a_training_that_fails_leaves_nothing(tmp_path, cells_file, config_file, capsys):
    config = yaml.safe_load(config_file.read_text())
    config["vae_training"]["learning_rate"] = 1e30
    config_file.write_text(yaml.safe_dump(config))
    words = ["benchmark", cells_file, "--config", config_file, "--output", tmp_path / "out", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    assert "raining diverged" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_labels_that_are_too_many_for_the_held_out_cells_are_refused_before_training(tmp_path, capsys):
    cells = tiny.tiny_adata(n_cells=800)
    cells.obs["clone"] = [f"clone{i % 55}" for i in range(800)]
    cells.write_h5ad(tmp_path / "clones.h5ad")
    words = ["benchmark", tmp_path / "clones.h5ad", "--condition", "clone", "--output", tmp_path / "out"]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2
    assert "In the held-out cells: the obs column 'clone' holds 55 different values" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["clones.h5ad"]


@pytest.mark.usefixtures("quick_pictures")
def test_scvi_is_a_baseline_where_it_is_installed(run, tmp_path, cells_file, config_file, monkeypatch):
    """With a stand-in that hands out its training cells: what is tested is how its cells come before the judge."""

    class StandIn:
        def __init__(self, counts):
            self.counts = counts

        @classmethod
        def fit(cls, counts, labels, *, seed):
            assert labels.max() == 1  # two batches
            assert seed == 3
            return cls(counts)

        def sample(self, n_cells, rng):
            donors = np.arange(n_cells)[::-1]
            return self.counts[donors], donors

    monkeypatch.setattr(command, "is_installed", lambda: True)
    monkeypatch.setattr(command, "SCVI", StandIn)
    words = ["benchmark", cells_file, "--config", config_file, "--embedding", "pca", "--device", "cpu"]
    run(*words, "--output", tmp_path / "auto")
    report = EvaluationReport.load(tmp_path / "auto" / "metrics.json")
    assert report.generators == ("scldm", "autoencoder", "autoencoder_of_training")
    assert list(report.systems.names) == [*SYSTEMS[:-1], "scvi", "memoriser"]
    assert report.systems.named("scvi").meaning.startswith("baseline: ")
    assert report.value("exact_duplicates", "scvi") == 1
    assert report.value("label_agreement", "scvi", condition="batch") is not None
    seconds = json.loads((tmp_path / "auto" / "summary.json").read_text())["seconds"]
    assert {"scvi_training", "scvi_sampling"} <= set(seconds)


@pytest.mark.usefixtures("quick_pictures")
def test_cells_without_a_label_can_be_benchmarked_as_the_refusal_says(run, tmp_path, donors_file, config_file):
    cells = ad.read_h5ad(donors_file)
    cells.obs.loc[cells.obs_names[[3, 9, 20, 33, 50]], "cell_type"] = np.nan
    cells.obs.loc[cells.obs_names[[4, 9]], "age"] = np.nan
    cells.write_h5ad(donors_file)
    words = ["benchmark", donors_file, "--output", tmp_path / "result", "--layer", "counts", "--condition", "cell_type"]
    words += ["--continuous", "age", "--scvi", "no", "--embedding", "pca", "--device", "cpu", "--max-cells", 30]
    with pytest.raises(SystemExit):
        run(*words, "--config", config_file)
    content = yaml.safe_load(config_file.read_text())
    content["data"]["missing_labels"] = "unlabelled"
    config_file.write_text(yaml.safe_dump(content))
    _, err = run(*words, "--config", config_file)
    assert "there the model chooses it" in err
    held_out, generated = (ad.read_h5ad(tmp_path / "result" / f"{name}.h5ad") for name in ("held_out", "cells"))
    assert generated.obs["cell_type"].isna().sum() % held_out.obs["cell_type"].isna().sum() == 0
    assert 0 < generated.obs["cell_type"].isna().sum() <= 15

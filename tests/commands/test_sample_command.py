from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import tiny

from scldm.cli import main
from scldm.commands.sample import parse_conditions, parse_guidance
from scldm.prior.guidance import Guidance


@pytest.fixture
def sample(run, model_dir, tmp_path):
    """Sample a file with few steps, and return it with what was printed."""

    def call(*options, name="out.h5ad"):
        output = tmp_path / name
        printed = run("sample", model_dir, "--output", output, "--steps", 2, "--device", "cpu", *options)
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
        return ad.read_h5ad(output), *printed

    return call


def test_file_has_what_was_asked_for_and_nothing_else(sample, trained):
    cells, out, err = sample("--n-cells", 7, "--condition", "cell_type=B cell", "age=61.5", "--seed", 3)
    assert "7 cells x 60 genes" in out
    assert err == ""
    assert isinstance(cells.X, sp.csr_matrix)
    assert cells.X.dtype == np.float32
    assert (cells.X.data == np.rint(cells.X.data)).all()
    assert cells.X.data.min() > 0
    assert cells.var_names.tolist() == list(trained.schema.genes)
    assert cells.obs_names.is_unique
    assert cells.obs.columns.tolist() == ["cell_type", "age"]
    assert (cells.obs["cell_type"] == "B cell").all()
    assert cells.obs["cell_type"].cat.categories.tolist() == list(tiny.CELL_TYPES)
    np.testing.assert_allclose(cells.obs["age"], 61.5, rtol=1e-5)
    assert cells.obsm["X_scldm"].shape == (7, 8)
    told = cells.uns["scldm"]
    assert told["model_hash"] == trained.hash()
    assert (told["conditions"], told["depth"]) == ("cell_type,age", "generated")
    assert (told["solver"], told["steps"], told["seed"], told["n_cells"]) == ("heun", 2, 3, 7)
    assert (told["guidance_mode"], told["guidance"]) == ("joint", 1.0)


def test_same_seed_same_cells_and_the_batch_size_does_not_matter(sample):
    first, *_ = sample("--n-cells", 140, "--seed", 3, "--batch-size", 512, name="a.h5ad")
    again, *_ = sample("--n-cells", 140, "--seed", 3, "--batch-size", 1, name="b.h5ad")
    other, *_ = sample("--n-cells", 140, "--seed", 4, name="c.h5ad")
    assert (first.X != again.X).nnz == 0
    np.testing.assert_array_equal(first.obsm["X_scldm"], again.obsm["X_scldm"])
    assert (first.X != other.X).nnz > 0


def test_files_of_all_parts_make_the_file_of_the_whole(sample):
    options = ("--n-cells", 300, "--condition", "cell_type=B cell")
    whole, *_ = sample(*options, name="whole.h5ad")
    first, out, _ = sample(*options, "--part", "1/2", name="first.h5ad")
    second, *_ = sample(*options, "--part", "2/2", name="second.h5ad")
    assert "128 cells x 60 genes" in out
    together = ad.concat([first, second])
    assert (together.X != whole.X).nnz == 0
    np.testing.assert_array_equal(together.obsm["X_scldm"], whole.obsm["X_scldm"])
    assert together.obs_names.tolist() == whole.obs_names.tolist()
    assert (second.uns["scldm"]["first_cell"], second.uns["scldm"]["n_cells"]) == (128, 172)


def test_like_repeats_the_attributes_row_by_row(sample, cells_file):
    real = ad.read_h5ad(cells_file)
    cells, *_ = sample("--like", cells_file)
    assert cells.obs["cell_type"].tolist() == real.obs["cell_type"].tolist()
    assert cells.obs["batch"].tolist() == real.obs["batch"].tolist()
    np.testing.assert_allclose(cells.obs["age"], real.obs["age"], rtol=1e-4)


@pytest.mark.parametrize(("n_cells", "tolerance"), [(30, 0.25), (300, 0.1)])
def test_like_with_a_number_keeps_the_proportions(n_cells, tolerance, sample, cells_file):
    real = ad.read_h5ad(cells_file).obs
    cells, *_ = sample("--like", cells_file, "--n-cells", n_cells)
    assert cells.n_obs == n_cells
    wanted = real["cell_type"].value_counts(normalize=True)
    found = cells.obs["cell_type"].value_counts(normalize=True)
    assert (wanted - found).abs().max() < tolerance
    # Whole rows are drawn: values stay together as they are in the file.
    assert set(zip(cells.obs["cell_type"], cells.obs["batch"], strict=True)) <= set(
        zip(real["cell_type"], real["batch"], strict=True)
    )


def test_condition_beside_like_holds_for_all_cells(sample, cells_file):
    cells, *_ = sample("--like", cells_file, "--condition", "batch=one")
    assert (cells.obs["batch"] == "one").all()
    assert cells.obs["cell_type"].nunique() == 3


def test_like_tells_which_attributes_it_leaves_to_the_model(sample, cells_file, tmp_path):
    real = ad.read_h5ad(cells_file)
    del real.obs["batch"]
    real.write_h5ad(tmp_path / "real.h5ad")
    cells, _, err = sample("--like", tmp_path / "real.h5ad", "--n-cells", 5)
    assert err.startswith("scldm: warning: ")
    assert "does not have batch" in err
    assert err.count("\n") == 1
    assert cells.obs.columns.tolist() == ["cell_type", "age"]


def test_depth_is_a_number_or_that_of_like(sample, cells_file, tmp_path):
    shallow, *_ = sample("--n-cells", 60, "--depth", 50, name="a.h5ad")
    deep, *_ = sample("--n-cells", 60, "--depth", 5000, name="b.h5ad")
    np.testing.assert_allclose(np.median(deep.X.sum(axis=1).A1), 5000, rtol=0.25)
    np.testing.assert_allclose(np.median(shallow.X.sum(axis=1).A1), 50, rtol=0.25)
    real = ad.read_h5ad(cells_file)
    size = np.where(np.arange(real.n_obs) % 2, 1.0, 30.0)
    real.layers["counts"] = sp.csr_matrix(real.X.multiply(size[:, None]))
    real.X = real.X.log1p()
    real.write_h5ad(tmp_path / "real.h5ad")
    cells, *_ = sample("--like", tmp_path / "real.h5ad", "--depth", "like", "--layer", "counts", name="c.h5ad")
    wanted = np.asarray(real.layers["counts"].sum(axis=1)).ravel()
    found = np.asarray(cells.X.sum(axis=1)).ravel()
    assert np.corrcoef(np.log(wanted), np.log(found))[0, 1] > 0.9
    assert cells.uns["scldm"]["depth"] == "given"


def test_counts_add_up_to_the_depth_if_asked_to(sample, cells_file):
    cells, *_ = sample("--n-cells", 30, "--depth", 50, "--exact-depth", name="a.h5ad")
    assert (np.asarray(cells.X.sum(axis=1)) == 50).all()
    assert cells.uns["scldm"]["exact_depth"]
    cells, *_ = sample("--like", cells_file, "--depth", "like", "--exact-depth", name="b.h5ad")
    np.testing.assert_array_equal(cells.X.sum(axis=1), ad.read_h5ad(cells_file).X.sum(axis=1))


def test_model_without_attributes_takes_the_depths_of_a_file(run, cells_file, config_file, tmp_path, capsys):
    unconditional = ("--data.conditions", "--data.continuous")
    run("train", config_file, "--output", tmp_path / "model", "--device", "cpu", *unconditional)
    ask = ("sample", tmp_path / "model", "--output", tmp_path / "out.h5ad", "--steps", 2, "--like", cells_file)
    with pytest.raises(SystemExit):
        main([str(word) for word in ask])
    assert "The model has no attributes to take" in capsys.readouterr().err
    run(*ask, "--depth", "like")
    cells, real = ad.read_h5ad(tmp_path / "out.h5ad"), ad.read_h5ad(cells_file)
    assert (cells.n_obs, cells.obs.shape[1]) == (real.n_obs, 0)
    depths = [np.log(np.asarray(data.X.sum(axis=1)).ravel()) for data in (real, cells)]
    assert np.corrcoef(depths)[0, 1] > 0.8


def test_gene_list_chooses_and_orders_the_columns(sample, tmp_path):
    (tmp_path / "genes.txt").write_text("GENE7\n\n  GENE3 \nGENE55\n")
    cells, out, _ = sample("--n-cells", 5, "--genes", tmp_path / "genes.txt")
    assert cells.var_names.tolist() == ["GENE7", "GENE3", "GENE55"]
    assert "5 cells x 3 genes" in out


def test_guidance_is_one_number_or_one_per_attribute(sample):
    ask = ("--n-cells", 20, "--condition", "cell_type=B cell", "--condition", "batch=one")
    plain, *_ = sample(*ask, name="a.h5ad")
    joint, *_ = sample(*ask, "--guidance", 3, name="b.h5ad")
    each, *_ = sample(*ask, "--guidance", "cell_type=3", "batch=0.5", name="c.h5ad")
    apart, *_ = sample(*ask, "--guidance", "cell_type=3", "--guidance", "batch=0.5", name="d.h5ad")
    assert joint.uns["scldm"]["guidance"] == 3.0
    assert each.uns["scldm"]["guidance_mode"] == "additive"
    assert dict(each.uns["scldm"]["guidance"]) == {"cell_type": 3.0, "batch": 0.5}
    assert not np.array_equal(plain.obsm["X_scldm"], joint.obsm["X_scldm"])
    assert not np.array_equal(joint.obsm["X_scldm"], each.obsm["X_scldm"])
    np.testing.assert_array_equal(each.obsm["X_scldm"], apart.obsm["X_scldm"])


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_solver_is_written_down(solver, sample):
    cells, *_ = sample("--n-cells", 3, "--solver", solver)
    assert cells.uns["scldm"]["solver"] == solver


def test_unseen_combination_is_one_warning(sample):
    cells, out, err = sample("--n-cells", 4, "--condition", "cell_type=monocyte", "batch=two")
    assert err.startswith("scldm: warning: Never observed together in the training data: ")
    assert "cell_type='monocyte' + batch='two'" in err
    assert err.count("\n") == 1
    assert cells.n_obs == 4
    assert "wrote" in out


def test_overwrite_replaces_the_file(sample):
    sample("--n-cells", 4)
    cells, *_ = sample("--n-cells", 2, "--overwrite")
    assert cells.n_obs == 2


def test_directories_of_the_output_are_made(sample):
    cells, *_ = sample("--n-cells", 2, name="new/deep/out.h5ad")
    assert cells.n_obs == 2


def test_value_may_hold_spaces_and_equals_signs():
    assert parse_conditions(["cell type=CD4+ T cell", "dose=drug=5 uM", "x= "]) == {
        "cell type": "CD4+ T cell",
        "dose": "drug=5 uM",
        "x": " ",
    }
    assert parse_guidance(["1.5"]) == Guidance.joint(1.5)
    assert parse_guidance(["2"], "additive") == Guidance.additive(2.0)
    assert parse_guidance(["a=2", "b=0"]) == Guidance.additive({"a": 2.0, "b": 0.0})


def test_like_leaves_what_a_cell_lacks_to_the_model(sample, cells_file, tmp_path):
    real = ad.read_h5ad(cells_file)
    real.obs.loc[real.obs_names[[1, 5]], "cell_type"] = np.nan
    real.obs["batch"] = np.nan
    real.write_h5ad(tmp_path / "real.h5ad")
    cells, _, err = sample("--like", tmp_path / "real.h5ad")
    assert "'cell_type' is missing for 2 of 120 cells; there the model chooses it" in err
    assert "does not have batch" in err
    assert np.flatnonzero(cells.obs["cell_type"].isna()).tolist() == [1, 5]

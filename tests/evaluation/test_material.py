"""What is read, checked and chosen before anything is compared."""

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix

from scldm.errors import UserError
from scldm.evaluation import EvaluationReport
from scldm.evaluation import evaluate as evaluate_fully
from scldm.evaluation.cells import read_cells
from scldm.evaluation.draws import group_halves, shuffled_within, split, stratified_choice
from scldm.evaluation.labels import joint_labels
from scldm.evaluation.material import Material, gather


def evaluate(*args, **kwargs) -> EvaluationReport:
    return evaluate_fully(*args, **({"n_halvings": 1, "n_permutations": 39} | kwargs))


def prepared(real, generated, train, **changes) -> Material:
    """Prepare cells as `evaluate` does, and compute nothing."""
    named = generated if isinstance(generated, dict) else {"generated": generated}
    options = {"conditions": [], "layer": None, "halves": True, "seed": 0, "max_cells": 5000}
    return gather(real, named, train, **(options | changes))


def test_missing_and_unknown_labels_are_said_not_guessed(real, generated, train):
    bare = ad.AnnData(generated.X, var=generated.var)
    report = evaluate(real, bare, train=train, conditions=["cell_type"])
    assert report.value("label_agreement", condition="cell_type") is None
    assert report.value("label_agreement", "ceiling", condition="cell_type") is not None
    assert any("no obs column 'cell_type'" in note for note in report.notes)
    strange = generated.copy()
    strange.obs["cell_type"] = "plasma"
    report = evaluate(real, strange, train=train, conditions=["cell_type"])
    assert report.value("label_agreement", condition="cell_type") == 0.0
    assert any("plasma" in note for note in report.notes)


def test_one_label_is_nothing_to_tell_apart(real, generated, train):
    cells = [a.copy() for a in (real, generated, train)]
    for adata in cells:
        adata.obs["tissue"] = "blood"
    report = evaluate(cells[0], cells[1], train=cells[2], conditions=["tissue"])
    assert "label_agreement" not in report.metrics
    assert any("nothing to tell apart" in note for note in report.notes)


def test_labels_agree_whatever_their_type(real, generated, train):
    cells = [a.copy() for a in (real, generated, train)]
    for adata, dtype in zip(cells, ("int64", "category", "float64"), strict=True):
        adata.obs["code"] = (adata.obs["cell_type"] == "T").astype(int).astype(dtype)
    report = evaluate(cells[0], cells[1], train=cells[2], conditions=["code"])
    assert report.value("label_agreement", condition="code") > 0.95


def test_genes_are_aligned_by_name(real, generated, train, plain):
    order = np.random.default_rng(0).permutation(generated.n_vars)
    shuffled = generated[:, order].copy()
    assert evaluate(real, shuffled, train=train).records == plain.records
    fewer = prepared(real, generated[:, 10:].copy(), train)
    assert (fewer.genes.n_real, fewer.genes.n_generated, fewer.genes.n_train) == (60, 50, 60)
    assert fewer.genes.n_shared == fewer.genes.n_judged == 50


@pytest.mark.parametrize("profile", ["standard", "published"])
def test_genes_that_the_training_cells_lack_are_not_judged(real, generated, train, profile):
    kept = np.r_[10:50]
    fewer = evaluate(real, generated, train=train[:, kept].copy(), profile=profile)
    assert (fewer.genes.n_train, fewer.genes.n_shared, fewer.genes.n_judged) == (40, 40, 40)
    same = evaluate(real[:, kept].copy(), generated[:, kept].copy(), train=train[:, kept].copy(), profile=profile)
    assert fewer.records == same.records
    with pytest.raises(UserError, match="The training cells share only 20 of the 60 expressed genes of the real cells"):
        evaluate(real, generated, train=train[:, :20].copy(), profile="published")


def test_a_gene_that_is_not_there_is_not_another_gene(real):
    cells = read_cells(real, "the cells", None, [], optional=False)
    assert list(cells.with_genes(cells.genes[[3, 1]]).genes) == ["gene3", "gene1"]
    with pytest.raises(ValueError, match="no gene 'GENE1'"):
        cells.with_genes(pd.Index(["gene3", "GENE1"]))


def test_only_real_cells_say_what_is_a_label(real, generated, train):
    cells = [a.copy() for a in (real, generated, train)]
    for adata in cells:
        adata.obs["clone"] = np.arange(adata.n_obs) % 50
    assert evaluate(cells[0], cells[1], train=cells[2], conditions=["clone"]).conditions == ("clone",)
    cells[1].obs["clone"] = np.arange(generated.n_obs)
    assert prepared(*cells, conditions=["clone"]).generated["generated"].labels["clone"].nunique() == 150
    for values in (np.arange(120) % 51, [f"donor{i % 51}" for i in range(120)]):
        cells[0].obs["clone"] = values
        with pytest.raises(
            UserError, match="In the real cells: the obs column 'clone' holds 51 different values in 120"
        ):
            evaluate(cells[0], cells[1], train=cells[2], conditions=["clone"])


def test_a_tenth_of_many_cells_may_be_labels(make_cells):
    many = make_cells(700, seed=4)
    many.obs["clone"] = np.arange(700) % 70
    assert read_cells(many, "the cells", None, ["clone"], optional=False).labels["clone"].nunique() == 70
    many.obs["clone"] = np.arange(700) % 71
    with pytest.raises(UserError, match="holds 71 different values in 700 cells"):
        read_cells(many, "the cells", None, ["clone"], optional=False)


def test_genes_that_training_cells_hardly_express_are_not_judged(real, generated, train):
    rare = train.copy()
    counts = rare.X.tolil()
    counts[:, 7] = 0
    counts[:2, 7] = 5
    rare.X = counts.tocsr()
    genes = prepared(real, generated, rare).genes
    assert (genes.n_shared, genes.n_judged) == (60, 59)


def test_formats_and_layers(real, generated, train, plain):
    layered = [ad.AnnData(np.log1p(a.X.toarray()), obs=a.obs, var=a.var, layers={"counts": a.X}) for a in (real, train)]
    other = generated.copy()
    other.X = csc_matrix(other.X).astype(np.int64)
    same = evaluate(layered[0], other, train=layered[1], layer="counts")
    assert same.records == plain.records


def test_max_cells_and_a_small_generated_file_set_the_number_of_cells(real, generated, train):
    assert evaluate(real, generated, train=train, max_cells=25).n_cells == 25
    small = prepared(real, {"ours": generated, "theirs": generated[:31]}, train)
    assert small.n_cells == 31
    assert small.notes == (
        "Only 31 cells are compared on either side because there are no more in the cells of 'theirs'; the held-out "
        "cells would allow 60.",
    )
    assert not prepared(real, generated[:31], train, max_cells=31).notes


def test_held_out_cells_that_were_trained_on_are_reported(generated, train, real):
    notes = prepared(train[:80].copy(), generated, train).notes
    assert any(note.startswith("WARNING: 80 of the 80") for note in notes)
    renamed = real.copy()
    renamed.obs_names = train.obs_names[: real.n_obs]
    assert not prepared(renamed, generated, train).notes


@pytest.mark.parametrize("repeated", ["held out", "training", "all"])
def test_repeated_names_do_not_hide_cells_that_were_trained_on(generated, train, repeated):
    held_out, train = train[:80].copy(), train.copy()
    for adata, where in ((held_out, "held out"), (train, "training")):
        if repeated in (where, "all"):
            adata.obs_names = [adata.obs_names[0], adata.obs_names[0], *adata.obs_names[2:]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anndata's
        notes = prepared(held_out, generated, train).notes
    assert any(note.startswith("WARNING: 80 of the 80") for note in notes)


def test_cells_that_were_trained_on_are_known_by_their_counts(generated, train):
    """Whatever they are called, and in whatever order the genes are."""
    held_out = train[:80, ::-1].copy()
    held_out.obs_names = [f"other{i}" for i in range(80)]
    notes = prepared(held_out, generated, train).notes
    assert any(note.startswith("WARNING: 80 of the 80") for note in notes)


def test_genes_that_files_do_not_share_are_reported(real, generated, train):
    few = generated.copy()
    few.var_names = [name if i % 5 else f"{name}.1" for i, name in enumerate(few.var_names)]
    notes = prepared(real, few, train).notes
    assert any("expressed genes" in note and note.startswith("WARNING: 12 of the ") for note in notes)
    assert not any("expressed genes" in note for note in prepared(real, generated, train).notes)


def test_versions_of_ensembl_identifiers_do_not_matter(real, generated, train):
    def named(adata: ad.AnnData, version: str) -> ad.AnnData:
        adata = adata.copy()
        adata.var_names = [f"ENSG{i:011d}{version}" for i in range(adata.n_vars)]
        return adata

    plain = prepared(named(real, ""), named(generated, ""), named(train, ""))
    versioned = prepared(named(real, ".1"), named(generated, ".12"), named(train, ""))
    assert versioned.genes == plain.genes
    assert not versioned.notes


@pytest.mark.parametrize("lacking", ["real", "generated", "train"])
def test_a_file_without_the_layer_has_its_counts_in_x(real, generated, train, lacking):
    files = {"real": real, "generated": generated, "train": train}
    for name, adata in files.items():
        if name != lacking:
            files[name] = adata.copy()
            files[name].layers["counts"] = adata.X.copy()
            files[name].X = adata.X.log1p()
    found = prepared(*files.values(), layer="counts")
    plain = prepared(real, generated, train)
    assert (found.held_out.counts != plain.held_out.counts).nnz == 0
    assert (found.generated["generated"].counts != plain.generated["generated"].counts).nnz == 0


def normalised(adata: ad.AnnData) -> ad.AnnData:
    result = adata.copy()
    result.X = result.X.log1p()
    return result


def renamed_genes(adata: ad.AnnData) -> ad.AnnData:
    result = adata.copy()
    result.var_names = [f"ENSG{i}" if i > 20 else name for i, name in enumerate(result.var_names)]
    return result


def doubled_genes(adata: ad.AnnData) -> ad.AnnData:
    result = adata.copy()
    result.var_names = ["gene0", "gene0", *result.var_names[2:]]
    return result


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, g, t: {"generated": normalised(g)}, "generated cells.*log"),
        (lambda r, g, t: {"real": normalised(r)}, "the real cells"),
        (lambda r, g, t: {"train": normalised(t)}, "the training cells"),
        (lambda r, g, t: {"generated": renamed_genes(g)}, "share only 21 of the 60"),
        (lambda r, g, t: {"generated": doubled_genes(g)}, "'gene0' is there more than once"),
        (lambda r, g, t: {"conditions": ["cell_typ"]}, "cell_typ'.*did you mean 'cell_type'"),
        (lambda r, g, t: {"conditions": ["age"]}, "'age' holds 120 different numbers"),
        (lambda r, g, t: {"layer": "count"}, "No file has a layer 'count'"),
        (lambda r, g, t: {"generated": g[:6].copy()}, "Only 6 cells"),
        (lambda r, g, t: {"seed": -1}, "seed is -1"),
        (lambda r, g, t: {"max_cells": 9}, "At most 9 cells"),
        (lambda r, g, t: {"n_halvings": 0}, "number of halvings is 0"),
        (lambda r, g, t: {"n_permutations": 38}, "permutations is 38; with fewer than 39"),
        (lambda r, g, t: {"profile": "publishd"}, "no profile 'publishd'; did you mean 'published'"),
        (lambda r, g, t: {"generated": {}}, "no generated cells"),
        (lambda r, g, t: {"generated": {"ours": g, "memoriser": g}}, "cannot be called 'memoriser'"),
        (lambda r, g, t: {"generated": {" ": g}}, "cannot be called ' '"),
        (lambda r, g, t: {"generated": {"ours": g, "scvi": normalised(g)}}, "the cells of 'scvi'.*log"),
        (lambda r, g, t: {"generated": {"ours": renamed_genes(g)}}, "The cells of 'ours' share only 21"),
        (lambda r, g, t: {"generated": {"scvi": g}, "baselines": {"scvi": g}}, "called 'scvi', which is the name of a"),
        (lambda r, g, t: {"baselines": {"generated": g}}, "called 'generated', which is the name of a generator"),
        (lambda r, g, t: {"baselines": {"pca_gaussian": g}}, "A baseline cannot be called 'pca_gaussian'"),
        (lambda r, g, t: {"baselines": {" ": g}}, "A baseline cannot be called"),
        (lambda r, g, t: {"profile": "published", "model": object()}, "one space: it takes no model"),
        (lambda r, g, t: {"paired": ["ours"]}, "no generator 'ours' that could be paired"),
        (lambda r, g, t: {"paired": ["generated"]}, "150 of the generated cells for 120 real cells"),
        (lambda r, g, t: {"group_by": "donr"}, "no obs column 'donr'"),
        (lambda r, g, t: {"group_by": "batch"}, "2 groups of 'batch'; to halve them, at least 6"),
    ],
)
def test_refusals(real, generated, train, change, message):
    arguments = {"real": real, "generated": generated, "train": train} | change(real, generated, train)
    with pytest.raises(UserError, match=message):
        evaluate(arguments.pop("real"), arguments.pop("generated"), **arguments)


def test_split_is_disjoint_complete_and_stratified(real):
    labels = real.obs[["cell_type"]].astype(object).reset_index(drop=True)
    parts = split(joint_labels(labels), 2, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(real.n_obs))
    shares = [labels["cell_type"].iloc[part].value_counts() for part in parts]
    assert (shares[0] - shares[1]).abs().max() <= 1


def test_subsamples_keep_the_shares_of_labels_to_within_one_cell(real):
    labels = real.obs[["cell_type"]].astype(object).reset_index(drop=True)
    chosen = stratified_choice(joint_labels(labels), 37, np.random.default_rng(0))
    assert len(set(chosen)) == 37
    assert (np.diff(chosen) > 0).all()
    expected = labels["cell_type"].value_counts() * 37 / len(labels)
    assert (labels["cell_type"].iloc[chosen].value_counts() - expected).abs().max() <= 1
    np.testing.assert_array_equal(
        stratified_choice(joint_labels(labels), 500, np.random.default_rng(0)), np.arange(len(labels))
    )
    # every cell has the same chance
    rng = np.random.default_rng(1)
    often = np.bincount(
        np.concatenate([stratified_choice(joint_labels(labels), 30, rng) for _ in range(800)]), minlength=len(labels)
    )
    assert abs(often / 800 - 0.25).max() < 0.08


def test_halves_keep_groups_whole_and_are_uneven_by_one_group_at_most():
    groups = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 6, 7, 8, 30])
    for seed in range(50):
        one, other = group_halves(groups, np.random.default_rng(seed))
        assert sorted(np.concatenate([one, other])) == list(range(len(groups)))
        assert not set(groups[one]) & set(groups[other])
        assert abs(len(one) - len(other)) <= 30


def test_cells_are_shuffled_within_their_labels():
    codes = np.array([0, 1, 0, 2, 1, 0, 2, 2] * 5)
    permuted = shuffled_within(codes, np.random.default_rng(0))
    assert sorted(permuted) == list(range(len(codes)))
    np.testing.assert_array_equal(codes[permuted], codes)
    assert (permuted != np.arange(len(codes))).any()

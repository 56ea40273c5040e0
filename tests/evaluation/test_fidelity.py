import json

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csc_matrix

from scldm.errors import UserError
from scldm.evaluation import FIGURES, EvaluationReport, evaluate, figure
from scldm.evaluation.fidelity import SYSTEMS
from scldm.evaluation.preparation import split


@pytest.fixture(scope="module")
def report(real, generated, train) -> EvaluationReport:
    return evaluate(real, generated, train=train, conditions=["cell_type", "batch"])


def test_every_figure_has_a_value_for_every_system_at_equal_numbers(report):
    assert list(report.systems) == list(SYSTEMS) == ["ceiling", "generated", "independent_nb", "memoriser"]
    assert report.n_cells == 60
    assert report.n_features == 30
    names = [row.name for row in report.figures]
    assert names[-2:] == ["label_agreement[cell_type]", "label_agreement[batch]"]
    assert set(names[:-2]) == set(FIGURES) - {"label_agreement"}
    for row in report.figures:
        assert list(row.values) == list(SYSTEMS)
        assert all(value is not None and np.isfinite(value) for value in row.values.values())


def test_a_perfect_generator_scores_like_the_ceiling(report):
    for name, tolerance in {"nearest_neighbour_accuracy": 0.12, "wasserstein2": 0.6, "precision": 0.12}.items():
        assert report.value(name) == pytest.approx(report.value(name, "ceiling"), abs=tolerance)
    assert report.value("depth_ratio") == pytest.approx(1.0, abs=0.15)
    assert report.value("label_agreement[cell_type]", "ceiling") > 0.95
    assert report.value("label_agreement[batch]", "ceiling") < 0.75  # the labels say nothing there


def test_the_baseline_misses_what_genes_do_together(report):
    assert report.value("gene_gene_correlation", "independent_nb") < report.value("gene_gene_correlation") - 0.1
    assert report.value("frechet_distance", "independent_nb") > report.value("frechet_distance", "ceiling")


def test_a_broken_generator_is_seen(real, train, make_cells):
    broken = make_cells(80, seed=9)
    broken.X = broken.X[:, ::-1].tocsr()  # every gene carries another gene's counts
    report = evaluate(real, broken, train=train)
    assert report.value("nearest_neighbour_accuracy") > 0.95
    assert report.value("gene_mean_correlation") < 0
    assert report.value("precision") < report.value("precision", "ceiling") - 0.3
    assert report.value("frechet_distance") > 4 * report.value("frechet_distance", "ceiling")


def test_wrong_labels_are_seen(real, generated, train):
    swapped = generated.copy()
    swapped.obs["cell_type"] = swapped.obs["cell_type"].cat.rename_categories({"B": "T", "T": "B"})
    report = evaluate(real, swapped, train=train, conditions=["cell_type"])
    assert report.value("label_agreement[cell_type]") < 0.05
    assert report.value("label_agreement[cell_type]", "ceiling") > 0.95


def test_the_same_seed_gives_the_same_report_and_another_seed_another(real, generated, train, report):
    again = evaluate(real, generated, train=train, conditions=["cell_type", "batch"])
    assert again == report
    assert evaluate(real, generated, train=train, seed=1).value("frechet_distance") != report.value("frechet_distance")


def test_without_training_cells_the_judge_takes_a_third_of_the_real_cells(real, generated):
    report = evaluate(real, generated, conditions=["cell_type"])
    assert report.n_cells == 40
    assert "memoriser" not in report.systems
    assert "third" in report.notes[0]
    # the ceiling is no memoriser: the space is fitted on neither half
    assert report.value("nearest_neighbour_accuracy", "ceiling") == pytest.approx(0.5, abs=0.15)


def test_missing_and_unknown_labels_are_said_not_guessed(real, generated, train):
    bare = ad.AnnData(generated.X, var=generated.var)
    report = evaluate(real, bare, train=train, conditions=["cell_type"])
    assert report.value("label_agreement[cell_type]") is None
    assert report.value("label_agreement[cell_type]", "ceiling") is not None
    assert any("no obs column 'cell_type'" in note for note in report.notes)
    strange = generated.copy()
    strange.obs["cell_type"] = "plasma"
    report = evaluate(real, strange, train=train, conditions=["cell_type"])
    assert report.value("label_agreement[cell_type]") == 0.0
    assert any("plasma" in note for note in report.notes)


def test_cells_without_a_label_are_left_out_of_label_agreement(real, generated, train, report):
    partly = generated.copy()
    partly.obs["cell_type"] = partly.obs["cell_type"].where(np.arange(partly.n_obs) % 3 > 0)
    patchy = train.copy()
    patchy.obs["cell_type"] = patchy.obs["cell_type"].where(np.arange(patchy.n_obs) > 5)
    value = evaluate(real, partly, train=patchy, conditions=["cell_type"]).value("label_agreement[cell_type]")
    assert value == pytest.approx(report.value("label_agreement[cell_type]"), abs=0.06)


def test_one_label_is_nothing_to_tell_apart(real, generated, train):
    cells = [a.copy() for a in (real, generated, train)]
    for adata in cells:
        adata.obs["tissue"] = "blood"
    report = evaluate(cells[0], cells[1], train=cells[2], conditions=["tissue"])
    assert report.value("label_agreement[tissue]") is None
    assert any("nothing to tell apart" in note for note in report.notes)


def test_labels_agree_whatever_their_type(real, generated, train):
    cells = [a.copy() for a in (real, generated, train)]
    for adata, dtype in zip(cells, ("int64", "category", "float64"), strict=True):
        adata.obs["code"] = (adata.obs["cell_type"] == "T").astype(int).astype(dtype)
    report = evaluate(cells[0], cells[1], train=cells[2], conditions=["code"])
    assert report.value("label_agreement[code]") > 0.95


def test_genes_are_aligned_by_name(real, generated, train, report):
    order = np.random.default_rng(0).permutation(generated.n_vars)
    assert (
        evaluate(real, generated[:, order].copy(), train=train, conditions=["cell_type", "batch"]).figures
        == report.figures
    )
    fewer = evaluate(real, generated[:, 10:].copy(), train=train)
    assert (fewer.genes.n_real, fewer.genes.n_generated, fewer.genes.n_train) == (60, 50, 60)
    assert fewer.genes.n_shared == fewer.genes.n_judged == 50


def test_genes_that_training_cells_hardly_express_are_not_judged(real, generated, train):
    rare = train.copy()
    counts = rare.X.tolil()
    counts[:, 7] = 0
    counts[:2, 7] = 5
    rare.X = counts.tocsr()
    report = evaluate(real, generated, train=rare)
    assert (report.genes.n_shared, report.genes.n_judged) == (60, 59)


def test_formats_and_layers(real, generated, train, report):
    layered = [ad.AnnData(np.log1p(a.X.toarray()), obs=a.obs, var=a.var, layers={"counts": a.X}) for a in (real, train)]
    other = generated.copy()
    other.X = csc_matrix(other.X).astype(np.int64)
    same = evaluate(layered[0], other, train=layered[1], layer="counts", conditions=["cell_type", "batch"])
    assert same.figures == report.figures


def test_max_cells_and_a_small_generated_file_set_the_number_of_cells(real, generated, train):
    assert evaluate(real, generated, train=train, max_cells=25).n_cells == 25
    assert evaluate(real, generated[:31], train=train).n_cells == 31


def test_held_out_cells_that_were_trained_on_are_reported(generated, train, real):
    report = evaluate(train[:80].copy(), generated, train=train)
    assert any(note.startswith("WARNING: 80 of the 80") for note in report.notes)
    renamed = real.copy()
    renamed.obs_names = train.obs_names[: real.n_obs]
    assert not evaluate(renamed, generated, train=train).notes


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
        (lambda r, g, t: {"layer": "count"}, "the real cells.*'count'"),
        (lambda r, g, t: {"generated": g[:6].copy()}, "Only 6 cells"),
        (lambda r, g, t: {"seed": -1}, "seed is -1"),
    ],
)
def test_refusals(real, generated, train, change, message):
    arguments = {"real": real, "generated": generated, "train": train} | change(real, generated, train)
    with pytest.raises(UserError, match=message):
        evaluate(arguments.pop("real"), arguments.pop("generated"), **arguments)


def test_inputs_are_left_alone(real, generated, train):
    before = [a.X.toarray().copy() for a in (real, generated, train)]
    evaluate(real, generated, train=train, conditions=["cell_type"])
    for adata, counts in zip((real, generated, train), before, strict=True):
        np.testing.assert_array_equal(adata.X.toarray(), counts)


def test_split_is_disjoint_complete_and_stratified(real):
    labels = real.obs[["cell_type"]].astype(object).reset_index(drop=True)
    parts = split(labels, 2, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(real.n_obs))
    shares = [labels["cell_type"].iloc[part].value_counts() for part in parts]
    assert (shares[0] - shares[1]).abs().max() <= 1


def test_a_figure_is_added_by_one_decorated_function(real, generated, train):
    @figure("largest_count", "lower", "The largest count.")
    def largest_count(comparison):
        return float(comparison.system.counts.max())

    try:
        with pytest.raises(ValueError, match="already a figure"):
            figure("largest_count", "lower", "Again.")(largest_count)
        report = evaluate(real, generated, train=train)
        assert report.value("largest_count", "memoriser") <= train.X.max()
    finally:
        del FIGURES["largest_count"]


def test_the_json_file_round_trips_and_names_everything(report, tmp_path):
    path = tmp_path / "metrics.json"
    report.save(path)
    content = json.loads(path.read_text())
    assert content["format_version"] == 1
    assert content["figures"][0]["name"] == "wasserstein2"
    assert content["figures"][0]["direction"] == "lower"
    assert content["figures"][0]["description"]
    assert content["figures"][0]["values"]["generated"] == report.value("wasserstein2")
    assert EvaluationReport.load(path) == report
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]
    path.write_text(json.dumps(content | {"format_version": 2}))
    with pytest.raises(UserError, match="format 2"):
        EvaluationReport.load(path)


def test_the_table_fits_a_terminal_and_holds_the_numbers(report, real, generated):
    table = report.table()
    with_notes = evaluate(real, ad.AnnData(generated.X, var=generated.var), conditions=["cell_type"]).table()
    assert "No training cells" in with_notes
    assert max(map(len, (table + "\n" + with_notes).split("\n"))) <= 100
    row = next(line for line in table.split("\n") if line.startswith("wasserstein2"))
    assert row.split()[1:] == ["lower", *(f"{report.value('wasserstein2', s):.2f}" for s in SYSTEMS)]


def test_unknown_names_are_refused_with_the_nearest(report):
    with pytest.raises(UserError, match="did you mean 'wasserstein2'"):
        report.value("wasserstein")
    with pytest.raises(UserError, match="did you mean 'memoriser'"):
        report.value("wasserstein2", "memorizer")


def test_the_picture_is_drawn_and_needs_the_cells(report, real, generated, tmp_path):
    from matplotlib.image import imread

    report.plot(tmp_path / "a.png")
    evaluate(real, ad.AnnData(generated.X, var=generated.var)).plot(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        pixels = imread(tmp_path / name)[..., :3]
        assert pixels.shape[1] > 1500
        assert 0.5 < (pixels.min(axis=-1) == 1.0).mean() < 0.98  # something is drawn on a white page
    with pytest.raises(UserError, match="run evaluate again"):
        EvaluationReport.from_dict(report.to_dict()).plot(tmp_path / "c.png")

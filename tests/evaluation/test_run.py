import json
import warnings
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.errors import UserError
from scldm.evaluation import METRICS, EvaluationReport, Limit, metric, run, write_page
from scldm.evaluation import evaluate as evaluate_fully
from scldm.evaluation.cells import log1p_cp10k
from scldm.evaluation.draws import split
from scldm.evaluation.metrics import transport
from scldm.evaluation.metrics.frechet import frechet_distance
from scldm.evaluation.metrics.kernels import PUBLISHED_BANDWIDTHS, mmd2
from scldm.evaluation.metrics.registry import Loss
from scldm.evaluation.metrics.transport import wasserstein2
from scldm.evaluation.spaces import FeatureSpace
from scldm.evaluation.verdict import at_ceiling
from scldm.seeds import numpy_rng

SYSTEMS = ["ceiling", "generated", "independent_nb", "pca_gaussian", "memoriser"]


def evaluate(*args, **kwargs) -> EvaluationReport:
    """Evaluate with one halving and few permutations, which is enough for what most tests look at."""
    return evaluate_fully(*args, **({"n_halvings": 1, "n_permutations": 39} | kwargs))


def test_every_metric_has_a_value_for_every_system_at_equal_numbers(report):
    assert list(report.systems.names) == SYSTEMS
    assert report.generators == ("generated",)
    assert (report.n_cells, report.n_halvings, report.n_permutations) == (60, 3, 39)
    assert list(report.spaces) == ["pca", "hvg"]
    found = {(row.info.name, row.space, row.condition) for row in report.rows}
    expected = set()
    for one in METRICS.values():
        places = {
            "once": [(None, None)],
            "space": [("pca", None), ("hvg", None)],
            "condition": [(None, "cell_type"), (None, "batch")],
        }[one.scope]
        expected |= {(one.info.name, *place) for place in places}
    assert found <= expected
    # what cells of two types and two meaningless batches, over 60 genes, do not allow
    assert {name for name, _, _ in expected - found} <= {
        "label_agreement_joint",
        "label_worst_gap",
        "marker_overlap",
        "marker_fold_change_correlation",
        "marker_fold_change_slope",
        "depth_ks_within",
        "dispersion_trend",
        "zero_fraction_curve",
        "gene_gene_correlation_within",
    }
    for row in report.rows:
        systems = list(row.values)
        assert systems == SYSTEMS
        for record in row.values.values():
            assert np.isfinite(record.value)
            assert len(record.halvings) in (2, 3)
            assert record.real_range is not None
            assert (record.p_value is None) == (record.system != "generated")
    judged = [row.values["generated"] for row in report.rows]
    # what is worse than 95 % of real cells has a p-value of 5 % or less
    called_worse = [at_ceiling(row, "generated") is False for row in report.rows]
    assert called_worse == [one.p_value <= 0.05 for one in judged]


def test_metrics_come_by_group_and_the_primary_space_first(report):
    groups = [row.info.group for row in report.rows]
    assert list(dict.fromkeys(groups)) == ["distances", "genes", "labels", "memorisation", "depth"]
    assert groups == sorted(groups, key=["distances", "genes", "labels", "memorisation", "depth"].index)
    distances = [(row.info.name, row.space) for row in report.rows if row.info.group == "distances"]
    half = len(distances) // 2
    assert distances[0] == ("wasserstein2", "pca")
    assert distances[half:] == [(name, "hvg") for name, _ in distances[:half]]


def test_a_perfect_generator_scores_like_the_ceiling(report):
    for name, tolerance in {"nearest_neighbour_accuracy": 0.12, "wasserstein2": 0.6, "precision": 0.12}.items():
        assert report.value(name) == pytest.approx(report.value(name, "ceiling"), abs=tolerance)
    assert report.value("depth_ratio") == pytest.approx(1.0, abs=0.15)
    assert report.value("label_agreement", "ceiling", condition="cell_type") > 0.95
    assert report.value("label_agreement", "ceiling", condition="batch") < 0.75  # the labels say nothing there


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
    assert report.value("label_agreement", condition="cell_type") < 0.05
    assert report.value("label_agreement", "ceiling", condition="cell_type") > 0.95


def test_the_same_seed_gives_the_same_report_and_another_seed_another(real, generated, train, plain):
    # and neither the cells nor the global random state are touched, and nothing is warned about
    counts = [a.X.toarray().copy() for a in (real, generated, train)]
    state = np.random.get_state()[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, again = (evaluate(real, generated, train=train, conditions=["cell_type"]) for _ in range(2))
    assert again == one
    for adata, before in zip((real, generated, train), counts, strict=True):
        np.testing.assert_array_equal(adata.X.toarray(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert evaluate(real, generated, train=train, seed=1).value("frechet_distance") != plain.value("frechet_distance")


def test_without_training_cells_everything_is_fitted_on_a_third_of_the_real_cells(real, generated):
    report = evaluate(real, generated, conditions=["cell_type"])
    assert report.n_cells == 40
    assert "memoriser" not in report.systems.names
    assert "nearest_training_ratio" not in report.metrics
    assert "third" in report.notes[0]
    # the ceiling is no memoriser: the space is fitted on neither half
    assert report.value("nearest_neighbour_accuracy", "ceiling") == pytest.approx(0.5, abs=0.15)


def test_cells_without_a_label_are_left_out_of_label_agreement(real, generated, train, report):
    partly = generated.copy()
    partly.obs["cell_type"] = partly.obs["cell_type"].where(np.arange(partly.n_obs) % 3 > 0)
    patchy = train.copy()
    patchy.obs["cell_type"] = patchy.obs["cell_type"].where(np.arange(patchy.n_obs) > 5)
    value = evaluate(real, partly, train=patchy, conditions=["cell_type"]).value(
        "label_agreement", condition="cell_type"
    )
    assert value == pytest.approx(report.value("label_agreement", condition="cell_type"), abs=0.06)


@pytest.fixture
def registered():
    """Register a metric for one test."""

    def register(name: str, compute: Callable[..., np.ndarray], **options: Any) -> None:
        what = {"group": "depth", "direction": "lower", "display_name": name, "description": "What it is."}
        metric(name, **(what | options))(compute)
        names.append(name)

    names: list[str] = []
    yield register
    for name in names:
        del METRICS[name]


def test_a_metric_is_added_by_one_decorated_function(real, generated, train, registered, tmp_path):
    def largest_count(comparison):
        largest = comparison.pool.cells.counts.max(axis=1).toarray().ravel()
        return np.array([largest[system].mean() for system, _ in comparison.draws])

    loss = Loss(lambda value, ceiling: abs(value - ceiling), warning=0.0, problem=1e9)
    limit = Limit("depth", loss, "The largest count is {value:.3f}.")

    registered("largest_count", largest_count, display_name="Largest <count>", limits=(limit,))
    with pytest.raises(ValueError, match="already a metric named 'largest_count'"):
        registered("largest_count", largest_count)
    doubled = generated.copy()
    doubled.X = doubled.X * 2
    report = evaluate(real, doubled, train=train)
    assert report.value("largest_count", "memoriser") <= train.X.max()
    assert report.interval("largest_count", "memoriser") is None
    found = [finding.sentence for finding in report.findings if finding.topic == "depth"]
    assert f"The largest count is {report.value('largest_count'):.3f}." in found
    report.save(tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert {
        "name": "largest_count",
        "display_name": "Largest <count>",
        "group": "depth",
        "direction": "lower",
        "description": "What it is.",
    } in content["metrics"]
    systems = [record["system"] for record in content["records"] if record["metric"] == "largest_count"]
    assert systems == SYSTEMS
    assert any(line.startswith("largest_count ") for line in report.table().splitlines())
    write_page(report, tmp_path / "report.html", embedding="pca")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Largest &lt;count&gt;" in page
    assert "What it is." in page


def test_several_generators_are_judged_in_one_run(real, generated, train, make_cells):
    independent = make_cells(130, seed=5, programme=0.0)
    several = evaluate(real, {"ours": generated, "theirs": independent}, train=train, conditions=["cell_type"])
    assert several.generators == ("ours", "theirs")
    assert list(several.systems.names)[:3] == ["ceiling", "ours", "theirs"]
    assert several.systems.named("theirs").meaning == "the cells of the generator 'theirs'"
    assert several.value("frechet_distance") == several.value("frechet_distance", "ours")
    assert several.value("gene_gene_correlation", "theirs") < several.value("gene_gene_correlation", "ours") - 0.1
    assert {finding.system for finding in several.findings} <= {"ours", "theirs"}
    assert all(set(row.n_generated) == {"ours", "theirs"} for row in several.labels)
    alone = evaluate(real, {"ours": generated}, train=train, conditions=["cell_type"])
    assert alone.value("frechet_distance") == several.value("frechet_distance")


@pytest.mark.parametrize("profile", ["standard", "published"])
def test_given_baselines_are_compared_and_not_judged(real, generated, train, make_cells, profile):
    scvi = make_cells(130, seed=5, programme=0.0)
    with_train = {"train": train, "conditions": ["cell_type"], "profile": profile}
    report = evaluate(real, {"ours": generated}, baselines={"scvi": scvi}, **with_train)
    ceiling = ["ceiling"] if profile == "standard" else []
    assert list(report.systems.names) == [*ceiling, "ours", "independent_nb", "pca_gaussian", "scvi", "memoriser"]
    assert report.systems.named("scvi").meaning == "baseline: the cells of the generator 'scvi'"
    assert report.generators == ("ours",)
    assert {finding.system for finding in report.findings} <= {"ours"}
    assert all(set(row.n_generated) == {"ours"} for row in report.labels)
    judged = evaluate(real, {"ours": generated, "scvi": scvi}, **with_train)
    assert {(r.metric, r.system, r.space, r.condition): r.value for r in judged.records} == {
        (r.metric, r.system, r.space, r.condition): r.value for r in report.records
    }


def test_values_are_averages_over_halvings(real, generated, train, registered):
    def first_depth(comparison):
        return np.array([comparison.pool.cells.library_size[system[0]] for system, _ in comparison.draws])

    registered("first_depth", first_depth)
    report = evaluate(real, generated, train=train, n_halvings=3)
    ceilings = [split(np.zeros(120, dtype=np.int64), 2, numpy_rng(0, f"halving {i}"))[0] for i in range(3)]
    first = real.X[[half.min() for half in ceilings]].sum(axis=1)
    assert report.value("first_depth", "ceiling") == pytest.approx(first.mean())
    np.testing.assert_allclose(report.record("first_depth", "ceiling").halvings, np.ravel(first))


def test_a_metric_that_takes_long_is_averaged_over_fewer_halvings(real, generated, train, registered):
    def n_rows(comparison):
        seen.append(comparison.n_rows)
        return np.zeros(comparison.n_rows)

    seen: list[int] = []
    registered("n_rows", n_rows, max_halvings=2, max_permutations=39)
    report = evaluate(real, generated, train=train, n_halvings=4, n_permutations=60)
    assert len(report.record("n_rows").halvings) == 2
    # two halvings of every system, and in every permutation the system and the ceiling in both
    assert sum(seen) == 2 * 5 + 39 * 2 * 2


def test_every_metric_compares_equally_many_cells(real, generated, train, registered):
    def n_each(comparison):
        sizes = np.stack([comparison.system.sum(axis=1), comparison.reference.sum(axis=1)])
        assert (sizes == 20).all()
        assert not (comparison.system & comparison.reference).any()
        return sizes[0].astype(np.float64)

    registered("n_each", n_each)
    assert evaluate(real, generated, train=train, max_cells=20).value("n_each", "memoriser") == 20


def test_a_seed_reaches_every_random_choice(real, generated, train):
    one, other = (evaluate(real, generated, train=train, conditions=["cell_type"], seed=s) for s in (0, 1))
    same = {row.label for row, again in zip(one.rows, other.rows, strict=True) if row.values == again.values}
    # but for shares of what all or none of the cells are
    assert same <= {"exact_duplicates", "label_agreement[cell_type]", "label_worst_gap[cell_type]"}


def test_cells_made_from_the_held_out_ones_are_compared_in_pairs(real, train, registered):
    """A copy of every real cell is as real as it: in halves that are paired, and never beside itself."""
    report = evaluate(real, {"copies": real.copy()}, train=train, conditions=["cell_type"], paired=["copies"])
    for row in report.rows:
        assert row.values["copies"].value == pytest.approx(row.values["ceiling"].value), row.label
        assert row.values["copies"].p_value > 0.05, row.label
    swapped = real[np.roll(np.arange(real.n_obs), 1)].copy()
    with pytest.raises(UserError, match="other labels of 'cell_type' than the real cells that they were made from"):
        evaluate(real, {"copies": swapped}, train=train, conditions=["cell_type"], paired=["copies"])


def test_groups_stay_on_one_side_and_make_the_ceiling_what_other_groups_score(make_cells):
    """Donors have a shift of their own: cells of other donors are farther away than cells of the same."""
    rng = np.random.default_rng(0)
    cells = make_cells(900, seed=4)
    donors = np.repeat(np.arange(30), 30)
    shift = rng.normal(1.0, 0.35, size=(30, cells.n_vars)).clip(0.2)
    cells.X = csr_matrix(rng.poisson(cells.X.toarray() * shift[donors]).astype(np.float32))
    cells.obs["donor"] = donors.astype(str)
    train, real, other = (cells[np.isin(donors, part)].copy() for part in (range(10), range(10, 20), range(20, 30)))
    together = evaluate(real, other, train=train, n_halvings=10)
    apart = evaluate(real, other, train=train, n_halvings=10, group_by="donor")
    assert apart.value("frechet_distance", "ceiling") > 1.2 * together.value("frechet_distance", "ceiling")
    called_worse = [sum(at_ceiling(row, "generated") is False for row in report.rows) for report in (together, apart)]
    assert called_worse[0] > 3 * called_worse[1]
    assert apart.n_cells == (300 - 30) // 2
    assert any("keep every 'donor' whole" in note for note in apart.notes)


def test_the_latent_space_of_a_model_is_judged_too(real, generated, train, plain):
    class Model:
        def get_latent_representation(self, adata: ad.AnnData) -> np.ndarray:
            return np.asarray(log1p_cp10k(adata.X.tocsr())[:, :4].toarray(), dtype=np.float32)

    report = evaluate(real, generated, train=train, model=Model())
    assert list(report.spaces) == ["pca", "hvg", "latent"]
    assert report.spaces["latent"].startswith("4 latent coordinates")
    assert report.value("wasserstein2", space="latent") > 0
    assert report.value("wasserstein2") == plain.value("wasserstein2")


def test_the_published_profile_follows_the_recipe(real, generated, train):
    report = evaluate(real, generated, profile="published")
    assert list(report.systems.names) == ["generated"]
    assert [row.label for row in report.rows] == [
        "wasserstein2",
        "mmd2_published",
        "frechet_distance",
        "nearest_neighbour_accuracy",
    ]
    assert (report.n_cells, report.n_halvings, report.n_permutations, report.profile) == (120, 1, 0, "published")
    assert report.notes[0].startswith("Profile 'published'")
    assert report.findings == report.labels == ()
    with_train = evaluate(real, generated, train=train, profile="published")
    assert list(with_train.systems.names) == ["generated", "independent_nb", "pca_gaussian", "memoriser"]
    assert with_train.rows[0].values["generated"] == report.rows[0].values["generated"]


def test_the_published_profile_takes_no_more_cells_than_published_tables(real, generated, monkeypatch):
    assert run.MAX_PUBLISHED_CELLS == 5000
    monkeypatch.setattr(run, "MAX_PUBLISHED_CELLS", 30)
    assert evaluate(real, generated, profile="published", max_cells=100).n_cells == 30
    assert evaluate(real, generated, profile="published", max_cells=20).n_cells == 20


def test_the_published_metrics_by_hand(real, generated):
    as_many = generated[:120].copy()
    report = evaluate(real, as_many, profile="published")
    # all real cells fit the space and are the reference
    space = FeatureSpace.fit(log1p_cp10k(real.X))
    x, y = (np.asarray((log1p_cp10k(a.X) - space.mean) @ space.components.T) for a in (as_many, real))
    assert report.value("wasserstein2") == pytest.approx(wasserstein2(x, y))
    assert report.value("frechet_distance") == pytest.approx(frechet_distance(x, y))
    assert report.value("mmd2_published") == pytest.approx(mmd2(x, y, PUBLISHED_BANDWIDTHS, unbiased=False))


def test_halves_share_no_cell(report):
    sides = report.drawn.sides
    assert set(sides) == {"reference", *SYSTEMS}
    assert all(len(side) == 60 for side in sides.values())
    reference, ceiling = ({tuple(row) for row in sides[name].features["pca"]} for name in ("reference", "ceiling"))
    assert len(reference | ceiling) == 120


def test_a_memorising_generator_is_caught(real, train):
    copies = train.copy()
    report = evaluate(real, copies, train=train, conditions=["cell_type"], n_permutations=39)
    assert report.value("exact_duplicates") == 1.0
    assert report.value("nearest_training_ratio") == 0.0
    assert any(finding.level == "problem" and finding.topic == "memorisation" for finding in report.findings)


def test_a_mode_dropping_generator_is_caught(make_cells, real, train):
    dropping = make_cells(300, seed=12)
    dropping = dropping[(dropping.obs["cell_type"] == "B").to_numpy()].copy()
    report = evaluate(real, dropping, train=train, conditions=["cell_type"], n_permutations=39)
    assert report.value("recall") < report.value("recall", "ceiling") - 0.2
    assert report.value("coverage") < report.value("coverage", "ceiling") - 0.2
    problems = {finding.topic for finding in report.findings if finding.level == "problem"}
    assert problems & {"modes", "labels"}


def test_beyond_the_limit_exact_transport_takes_a_part_and_sliced_transport_all(
    real, generated, train, plain, monkeypatch
):
    assert transport.EXACT_TRANSPORT_CELLS == 1000
    monkeypatch.setattr(transport, "EXACT_TRANSPORT_CELLS", 30)
    part = evaluate(real, generated, train=train)
    assert any(note.startswith("wasserstein2 is of 30 of the 60 cells") for note in part.notes)
    # fewer cells are farther apart
    assert part.value("wasserstein2", "ceiling") > plain.value("wasserstein2", "ceiling")
    assert part.value("sliced_wasserstein2") == plain.value("sliced_wasserstein2")
    assert part.value("frechet_distance") == plain.value("frechet_distance")

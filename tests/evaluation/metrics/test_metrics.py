"""The registered metrics, on cells whose faults are known."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.kernels import MMD2_PUBLISHED
from scldm.evaluation.metrics.transport import WASSERSTEIN2_PUBLISHED
from scldm.evaluation.placing import fit, fit_spaces, place
from scldm.evaluation.scoring import Plan, score

CONDITIONS = ["cell_type", "batch"]
PERFECT = {"higher": 1.0, "lower": 0.0}
# These look at more than the chosen cells: the scale of features is the pool's, members are drawn row by row.
NOT_ALONE = {"classifier_auroc", "membership_auroc"}


@pytest.fixture(scope="module")
def everything(make_cells) -> ad.AnnData:
    # more counts per gene than in other tests, so that all metrics have something to compare
    return make_cells(1200, seed=21, n_genes=120)


def side(adata: ad.AnnData, fitted: Fitted) -> Side:
    return place(read_cells(adata, "cells", None, CONDITIONS, optional=True), fitted.spaces)


@pytest.fixture(scope="module")
def fitted(everything) -> Fitted:
    train = read_cells(everything[:500], "training", None, CONDITIONS, optional=False)
    spaces = fit_spaces(train, None, 0)
    fitting = place(train, spaces)
    return fit(spaces, fitting, fitting, CONDITIONS)


@pytest.fixture(scope="module")
def reference(everything, fitted) -> Side:
    return side(everything[500:850], fitted)


@pytest.fixture(scope="module")
def fresh(everything, fitted) -> Side:
    return side(everything[850:], fitted)


def anew(fitted: Fitted) -> Fitted:
    """Fit as before, without what was kept of other comparisons: the attacker's spaces are of one evaluation."""
    return Fitted(fitted.spaces, fitted.classifiers, fitted.fitting, fitted.training)


def beside(fitted: Fitted, reference: Side, system: Side, release: Side | None = None) -> Comparison:
    """Compare all cells of a system with all of the reference, in one row."""
    own = (np.arange(len(system) + len(reference)) < len(system))[None]
    return Comparison(anew(fitted), system.and_then(reference), own, ~own, reference, release)


def compute(comparison: Comparison, name: str, *argument: str) -> float | None:
    """Compute a metric of a comparison with one row."""
    found = METRICS[name].compute(comparison, *argument)
    return None if found is None else found.item()


def arguments(name: str) -> list[tuple[str, ...]]:
    places = {"condition": [(condition,) for condition in CONDITIONS], "space": [("pca",), ("hvg",)]}
    return places.get(METRICS[name].scope, [()])


@pytest.mark.parametrize("name", [m.info.name for m in METRICS.values() if m.info.group in {"genes", "depth"}])
def test_cells_against_their_copies_are_perfect_in_every_row(fitted, reference, draw, name):
    chosen, _ = draw(350, 300, 0)
    nobody = np.zeros_like(chosen)
    pool, sides = reference.and_then(reference), (np.hstack([chosen, nobody]), np.hstack([nobody, chosen]))
    for argument in arguments(name):
        found = METRICS[name].compute(Comparison(fitted, pool, *sides, reference), *argument)
        np.testing.assert_allclose(found, PERFECT.get(METRICS[name].info.direction, 1.0), atol=1e-6)


@pytest.fixture(scope="module")
def pool(fitted, reference, fresh) -> Side:
    return fresh.and_then(reference)


@pytest.mark.parametrize("name", list(METRICS))
def test_there_is_a_finite_number_for_every_row(fitted, reference, fresh, pool, draw, name):
    system, chosen = draw(700, 300, 300, n_rows=6)
    seen = []
    for argument in arguments(name):
        comparison = Comparison(anew(fitted), pool, system, chosen, reference, fresh)
        found = METRICS[name].compute(comparison, *argument)
        assert found.shape == (6,)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()
        seen.append(found)
        np.testing.assert_array_equal(METRICS[name].compute(comparison, *argument), found)
    if name == "exact_duplicates":  # of which real cells have none
        np.testing.assert_array_equal(seen, 0.0)
    else:
        assert (np.std(seen, axis=1) > 0).any()


@pytest.mark.parametrize("name", [name for name in METRICS if name not in NOT_ALONE])
def test_a_row_is_the_metric_of_just_the_chosen_cells(fitted, reference, pool, draw, name):
    system, chosen = draw(700, 250, 250, n_rows=3)
    seen = []
    for argument in arguments(name):
        found = METRICS[name].compute(Comparison(fitted, pool, system, chosen, reference), *argument)
        for row in range(3):
            cells = np.flatnonzero(system[row] | chosen[row])
            sides = system[row : row + 1, cells], chosen[row : row + 1, cells]
            alone = METRICS[name].compute(Comparison(fitted, pool.take(cells), *sides, reference), *argument)
            # sums in single precision are in another order
            np.testing.assert_allclose(alone, found[row : row + 1], rtol=1e-4, atol=1e-6)
        seen.append(found)
    if name != "exact_duplicates":
        assert (np.ptp(seen, axis=1) > 1e-4).any()


def test_metrics_of_genes_are_what_their_descriptions_say(fitted, reference, pool, draw):
    system, chosen = draw(700, 250, 250, n_rows=2)
    comparison = Comparison(fitted, pool, system, chosen, reference)
    logs, counts = pool.cells.log1p_cp10k.toarray().astype(np.float64), pool.cells.counts.toarray()
    genes = np.argsort(-fitted.fitting.cells.log1p_cp10k.toarray().mean(axis=0), kind="stable")[:50]
    expected = []
    for sides in zip(system, chosen, strict=True):
        means, variances, zeros, pairs = zip(
            *(
                (
                    logs[side].mean(axis=0),
                    np.log10(logs[side].var(axis=0)),
                    (counts[side] == 0).mean(axis=0),
                    np.corrcoef(logs[side][:, genes].T)[np.triu_indices(50, k=1)],
                )
                for side in sides
            ),
            strict=True,
        )
        expected.append(
            {
                "gene_mean_correlation": np.corrcoef(*means)[0, 1],
                "gene_mean_mae": np.abs(means[0] - means[1]).mean(),
                "gene_variance_correlation": np.corrcoef(*variances)[0, 1],
                "zero_fraction_mae": np.abs(zeros[0] - zeros[1]).mean(),
                "gene_gene_correlation": np.corrcoef(*pairs)[0, 1],
            }
        )
    for name in expected[0]:
        found = METRICS[name].compute(comparison)
        np.testing.assert_allclose(found, [one[name] for one in expected], rtol=1e-4, err_msg=name)


def test_correlations_within_labels_are_those_of_deviations_from_the_mean_of_a_label(fitted, reference, pool, draw):
    system, chosen = draw(700, 250, 250, n_rows=2)
    column = pool.labels("cell_type")
    system[1] &= column == "B"
    genes = np.arange(0, 120, 4)  # a quarter of them are of one type more than of the other
    some = anew(fitted)
    some.__dict__["correlated_genes"] = genes
    logs, expected = pool.cells.log1p_cp10k[:, genes].toarray().astype(np.float64), []
    for sides, judged in zip(zip(system, chosen, strict=True), (["B", "T"], ["B"]), strict=True):
        pairs = []
        for cells in sides:
            deviations = [logs[cells & (column == label)] for label in judged]
            deviations = np.concatenate([one - one.mean(axis=0) for one in deviations])
            pairs.append(np.corrcoef(deviations.T)[np.triu_indices(len(genes), k=1)])
        expected.append(np.corrcoef(*pairs)[0, 1] * np.isin(column[sides[1]], judged).mean())
    unused = Side(pool.cells, pool.features)  # nothing is kept of it
    found = METRICS["gene_gene_correlation_within"].compute(Comparison(some, unused, system, chosen, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("metric", [WASSERSTEIN2_PUBLISHED, MMD2_PUBLISHED])
def test_published_metrics_are_of_just_the_chosen_cells(fitted, reference, pool, draw, metric):
    system, chosen = draw(700, 100, 100, n_rows=2)
    found = metric.compute(Comparison(fitted, pool, system, chosen, reference), "pca")
    for row in range(2):
        sides = pool.take(np.flatnonzero(system[row])), pool.take(np.flatnonzero(chosen[row]))
        alone = metric.compute(beside(fitted, *sides[::-1]), "pca")
        np.testing.assert_allclose(alone, found[row : row + 1])


@pytest.mark.parametrize("name", [m.info.name for m in METRICS.values() if m.info.group == "distances"])
def test_distances_see_which_cells_are_real(everything, fitted, reference, fresh, name):
    shuffled = everything[850:].copy()
    columns, rng = shuffled.X.toarray().T, np.random.default_rng(0)
    shuffled.X = csr_matrix(np.stack([rng.permutation(column) for column in columns], axis=1))
    real, broken = (compute(beside(fitted, reference, one), name, "pca") for one in (fresh, side(shuffled, fitted)))
    assert broken < real if name in {"precision", "recall", "density", "coverage"} else broken > real


def test_the_same_value_whatever_was_computed_before(fitted, reference, fresh, everything):
    other = side(everything[:350], fitted)
    first = compute(beside(fitted, reference, fresh), "zero_fraction_mae")
    for reference_again in (fresh, other, reference):
        compute(beside(fitted, reference_again, other), "gene_mean_mae")
    assert compute(beside(fitted, reference, fresh), "zero_fraction_mae") == first


@pytest.mark.parametrize("name", list(METRICS))
def test_the_same_rows_whatever_was_drawn_from_the_pool_before(fitted, reference, fresh, draw, name):
    first, second = draw(700, 150, 150, n_rows=2), draw(700, 120, 120, n_rows=2, seed=5)
    for argument in arguments(name):
        used = fresh.and_then(reference)
        METRICS[name].compute(Comparison(anew(fitted), used, *first, reference, fresh), *argument)
        again = METRICS[name].compute(Comparison(anew(fitted), used, *second, reference, fresh), *argument)
        unused = Comparison(anew(fitted), fresh.and_then(reference), *second, reference, fresh)
        np.testing.assert_array_equal(METRICS[name].compute(unused, *argument), again)


def test_genes_that_vary_independently_within_labels_are_seen(everything, fitted, reference, fresh):
    broken = everything[850:].copy()
    counts, rng = broken.X.toarray(), np.random.default_rng(0)
    for label in ("B", "T"):
        cells = np.flatnonzero(broken.obs["cell_type"] == label)
        counts[cells] = np.stack([rng.permutation(column) for column in counts[cells].T], axis=1)
    broken.X = csr_matrix(counts)
    comparison = beside(fitted, reference, side(broken, fitted))
    assert compute(comparison, "gene_gene_correlation_within") < 0.3
    assert compute(comparison, "marker_fold_change_correlation", "cell_type") > 0.9
    assert compute(beside(fitted, reference, fresh), "gene_gene_correlation_within") > 0.8


def test_swapped_labels_turn_fold_changes_round(everything, fitted, reference):
    swapped = everything[850:].copy()
    swapped.obs["cell_type"] = swapped.obs["cell_type"].cat.rename_categories({"B": "T", "T": "B"})
    comparison = beside(fitted, reference, side(swapped, fitted))
    assert compute(comparison, "marker_fold_change_correlation", "cell_type") < -0.9
    assert compute(comparison, "marker_fold_change_slope", "cell_type") == pytest.approx(-1.0, abs=0.1)
    assert compute(comparison, "marker_overlap", "cell_type") < 0.1
    assert compute(comparison, "label_agreement", "cell_type") < 0.05
    assert compute(comparison, "label_worst_gap", "cell_type") > 0.9
    assert compute(comparison, "label_agreement_joint") <= compute(comparison, "label_agreement", "cell_type")


def test_cells_of_half_the_depth(everything, fitted, reference):
    thin = everything[850:].copy()
    counts = thin.X.toarray().astype(int)
    thin.X = csr_matrix(np.random.default_rng(0).binomial(counts, 0.5).astype(np.float32))
    comparison = beside(fitted, reference, side(thin, fitted))
    assert compute(comparison, "depth_ratio") == pytest.approx(0.5, abs=0.05)
    assert compute(comparison, "depth_ks") > 0.6
    assert compute(comparison, "depth_ks_within", "batch") > 0.6


def test_metrics_of_labels_that_are_not_there(fitted, reference, fresh):
    cells = Cells(fresh.cells.counts, fresh.cells.genes, fresh.cells.labels[["batch"]])
    comparison = beside(fitted, reference, Side(cells, fresh.features))
    assert compute(comparison, "label_agreement_joint") is None
    for name in ("marker_overlap", "marker_fold_change_correlation", "label_agreement", "label_worst_gap"):
        assert compute(comparison, name, "cell_type") is None
        assert compute(comparison, name, "batch") is not None
    assert compute(comparison, "marker_fold_change_slope", "cell_type") is None
    assert compute(comparison, "depth_ks_within", "cell_type") is None
    bare = Cells(fresh.cells.counts, fresh.cells.genes, fresh.cells.labels[[]])
    unlabelled = beside(fitted, reference, Side(bare, fresh.features))
    for name in ("gene_gene_correlation_within", "label_agreement_joint", "label_shares"):
        assert compute(unlabelled, name) is None


@pytest.mark.parametrize("name", ["gene_gene_correlation_within", "label_shares"])
def test_what_is_of_the_first_condition_or_of_all_is_not_of_another_one(fitted, reference, fresh, name):
    # the ceiling's value is of all columns, and nothing to hold a value of some of them against
    cells = Cells(fresh.cells.counts, fresh.cells.genes, fresh.cells.labels[["batch"]])
    assert compute(beside(fitted, reference, Side(cells, fresh.features)), name) is None


def test_copies_of_training_cells(everything, fitted, reference, fresh):
    copies = side(everything[:350], fitted)
    found = {
        name: [compute(beside(fitted, reference, system, system), name) for system in (fresh, copies)]
        for name in ("nearest_training_ratio", "exact_duplicates", "near_duplicates", "membership_auroc")
    }
    assert found["nearest_training_ratio"] == [pytest.approx(1.0, abs=0.1), 0.0]
    assert found["exact_duplicates"] == [0.0, 1.0]
    assert found["near_duplicates"] == [pytest.approx(0.01, abs=0.03), 1.0]
    # 350 of 500 training cells are in the release
    assert found["membership_auroc"] == [pytest.approx(0.5, abs=0.06), pytest.approx(0.5 + 0.5 * 0.7, abs=0.04)]


def test_the_unit_of_distances_to_training_cells_is_that_of_all_held_out_ones(everything, fitted, reference, fresh):
    copies = side(everything[:350], fitted)
    # permuted, the reference may be nothing but copies: no unit
    own = (np.arange(700) < 350)[None]
    pool = fresh.and_then(copies)
    assert compute(Comparison(fitted, pool, own, ~own, reference), "nearest_training_ratio") == pytest.approx(
        1.0, abs=0.1
    )
    assert compute(Comparison(fitted, pool, ~own, own, reference), "nearest_training_ratio") == 0.0
    assert compute(Comparison(fitted, pool, own, ~own, copies), "nearest_training_ratio") is None


def test_an_attacker_has_all_cells_of_a_system(everything, fitted):
    # all 500 training cells are handed out, and 50 of them are compared
    held_out, copies = side(everything[500:600], fitted), side(everything[:500], fitted)
    plan = Plan(n_cells=50, n_halvings=2, n_permutations=39, seed=0)
    systems = {"ceiling": held_out, "copies": copies}
    scores = score([METRICS["membership_auroc"]], anew(fitted), held_out, systems, CONDITIONS, plan)
    assert len(scores.drawn["copies"]) == 50
    values = {record.system: record.value for record in scores.records}
    assert values["copies"] > 0.99
    assert values["ceiling"] == pytest.approx(0.5, abs=0.1)
    # what is compared of the copies gives away a tenth of the training cells
    part = compute(beside(fitted, scores.reference, scores.drawn["copies"]), "membership_auroc")
    assert part == pytest.approx(0.55, abs=0.08)


def test_real_cells_have_a_gap_too(fitted, reference, draw):
    # the ceiling is the largest of several differences: not 0
    halves = Comparison(fitted, reference, *draw(350, 175, 175), reference)
    found = METRICS["label_worst_gap"].compute(halves, "batch")
    assert ((found > 0) & (found < 0.3)).all()


def test_labels_that_a_system_misses_count_as_failed(everything, fitted, reference):
    later = everything[850:]
    few = np.flatnonzero(later.obs["batch"] == "two")[:4]
    missing = np.union1d(np.flatnonzero(later.obs["batch"] == "one"), few)
    whole, part = (beside(fitted, reference, side(x, fitted)) for x in (later, later[missing]))
    share = (reference.cells.labels["batch"] == "one").mean()
    for name in ("marker_overlap", "marker_fold_change_correlation", "marker_fold_change_slope"):
        assert compute(part, name, "batch") <= 0.5
    assert compute(part, "depth_ks_within", "batch") == pytest.approx(1 - share, abs=0.15)
    assert compute(whole, "depth_ks_within", "batch") < 0.2
    # one of two cell types: nothing to compare it with, and half of what goes together within types is not there
    one_type = beside(fitted, reference, side(later[later.obs["cell_type"] == "B"], fitted))
    for name in ("marker_overlap", "marker_fold_change_correlation", "marker_fold_change_slope"):
        assert compute(one_type, name, "cell_type") == 0.0
    left = (reference.cells.labels["cell_type"] == "B").mean()
    assert 0.5 * left < compute(one_type, "gene_gene_correlation_within") <= left
    renamed = later.copy()
    renamed.obs["cell_type"] = "neither"
    stranger = beside(fitted, reference, side(renamed, fitted))
    assert compute(stranger, "gene_gene_correlation_within") == 0.0
    assert compute(stranger, "depth_ks_within", "cell_type") == 1.0
    assert compute(stranger, "label_shares") == 1.0


def test_a_label_is_missed_in_the_rows_that_lack_it(fitted, reference, fresh, draw):
    # the first draw has only B cells of the system, the second all
    pool = fresh.and_then(reference)
    label = pool.labels("cell_type")
    own, chosen = (np.stack([side, side]) for side in (np.arange(700) < 350, np.arange(700) >= 350))
    own[0] &= label == "B"
    comparison = Comparison(fitted, pool, own, chosen, reference)
    one, both = METRICS["gene_gene_correlation_within"].compute(comparison)
    assert one <= (reference.cells.labels["cell_type"] == "B").mean() < 0.8 < both
    one, both = METRICS["marker_overlap"].compute(comparison, "cell_type")
    assert one == 0.0 < both
    one, both = METRICS["depth_ks_within"].compute(comparison, "cell_type")
    assert one > (reference.cells.labels["cell_type"] == "T").mean() > 0.2 > both


def test_no_metrics_of_memorisation_without_training_cells(fitted, reference, fresh):
    blind = replace(fitted, training=None)
    for metric in (m for m in METRICS.values() if m.info.group == "memorisation"):
        assert compute(beside(blind, reference, fresh), metric.info.name) is None

"""The registered figures of genes, labels, memorisation and depth, on cells whose faults are known."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

import scldm.evaluation.figures  # noqa: F401
from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.judge import bring, fit_judge, fit_spaces
from scldm.evaluation.registry import FIGURES, Comparison, Judge, Side
from scldm.evaluation.resampling import Estimate
from scldm.evaluation.scoring import score, split_sides

CONDITIONS = ["cell_type", "batch"]
PERFECT = {"higher": 1.0, "lower": 0.0}


@pytest.fixture(scope="module")
def everything(make_cells) -> ad.AnnData:
    # more counts per gene than in other tests, so that all figures have something to compare
    return make_cells(1200, seed=21, n_genes=120)


def side(adata: ad.AnnData, judge: Judge | None, name: str) -> Side:
    cells = read_cells(adata, name, None, CONDITIONS, optional=True)
    spaces = fit_spaces(cells, None, 0) if judge is None else judge.spaces
    return bring(cells, spaces, name, 0, 60)


@pytest.fixture(scope="module")
def judge(everything) -> Judge:
    train = everything[:500]
    spaces = fit_spaces(read_cells(train, "training", None, CONDITIONS, optional=False), None, 0)
    fitting = bring(read_cells(train, "training", None, CONDITIONS, optional=False), spaces, "training", 0, 60)
    return fit_judge(spaces, fitting, fitting, CONDITIONS)


@pytest.fixture(scope="module")
def reference(everything, judge) -> Side:
    return side(everything[500:850], judge, "reference")


@pytest.fixture(scope="module")
def fresh(everything, judge) -> Side:
    return side(everything[850:], judge, "fresh")


def beside(judge: Judge, reference: Side, system: Side, split: int = 0) -> Comparison:
    return Comparison(judge, reference, system, release=system, split=split)


def compute(comparison: Comparison, name: str, *argument: str) -> Estimate | None:
    return FIGURES[name].compute(comparison, *argument)


def arguments(name: str) -> list[tuple[str, ...]]:
    return [(condition,) for condition in CONDITIONS] if FIGURES[name].scope == "condition" else [()]


@pytest.mark.parametrize("name", [f.name for f in FIGURES.values() if f.group in {"genes", "depth"}])
def test_a_side_against_itself_is_perfect_in_every_resample(judge, reference, name):
    for argument in arguments(name):
        found = compute(beside(judge, reference, reference), name, *argument)
        perfect = PERFECT.get(FIGURES[name].direction, 1.0)
        assert found.value == pytest.approx(perfect, abs=1e-9)
        np.testing.assert_allclose(found.replicates, perfect, atol=1e-9)


@pytest.mark.parametrize("name", [f.name for f in FIGURES.values() if f.group not in {"distances"}])
def test_resamples_spread_round_the_value(judge, reference, fresh, name):
    for argument in arguments(name):
        found = compute(beside(judge, reference, fresh), name, *argument)
        assert found.replicates.shape == (60,)
        assert np.isfinite(found.replicates).all()
        if found.value not in (0.0, 1.0):  # shares of none or of all do not vary
            assert found.replicates.std() > 0
        assert found.interval[0] <= found.value <= found.interval[1]


def test_the_same_value_whatever_was_computed_before(judge, reference, fresh, everything):
    other = side(everything[:350], judge, "other")
    first = compute(beside(judge, reference, fresh), "zero_fraction_mae")
    for reference_again in (fresh, other, reference):
        compute(beside(judge, reference_again, other), "gene_mean_mae")
    again = compute(beside(judge, reference, fresh), "zero_fraction_mae")
    assert again.value == first.value
    np.testing.assert_array_equal(again.replicates, first.replicates)


def test_genes_that_vary_independently_within_labels_are_seen(everything, judge, reference):
    broken = everything[850:].copy()
    counts, rng = broken.X.toarray(), np.random.default_rng(0)
    for label in ("B", "T"):
        cells = np.flatnonzero(broken.obs["cell_type"] == label)
        counts[cells] = np.stack([rng.permutation(column) for column in counts[cells].T], axis=1)
    broken.X = csr_matrix(counts)
    comparison = beside(judge, reference, side(broken, judge, "broken"))
    assert compute(comparison, "gene_gene_correlation_within").value < 0.3
    assert compute(comparison, "marker_fold_change_correlation", "cell_type").value > 0.9
    real = beside(judge, reference, side(everything[850:], judge, "fresh"))
    assert compute(real, "gene_gene_correlation_within").value > 0.8


def test_swapped_labels_turn_fold_changes_round(everything, judge, reference):
    swapped = everything[850:].copy()
    swapped.obs["cell_type"] = swapped.obs["cell_type"].cat.rename_categories({"B": "T", "T": "B"})
    comparison = beside(judge, reference, side(swapped, judge, "swapped"))
    assert compute(comparison, "marker_fold_change_correlation", "cell_type").value < -0.9
    assert compute(comparison, "marker_overlap", "cell_type").value < 0.1
    assert compute(comparison, "label_agreement", "cell_type").value < 0.05
    assert compute(comparison, "label_worst_gap", "cell_type").value > 0.9
    joint = compute(comparison, "label_agreement_joint").value
    assert joint <= compute(comparison, "label_agreement", "cell_type").value


def test_cells_of_half_the_depth(everything, judge, reference):
    thin = everything[850:].copy()
    counts = thin.X.toarray().astype(int)
    thin.X = csr_matrix(np.random.default_rng(0).binomial(counts, 0.5).astype(np.float32))
    comparison = beside(judge, reference, side(thin, judge, "thin"))
    assert compute(comparison, "depth_ratio").value == pytest.approx(0.5, abs=0.05)
    assert compute(comparison, "depth_ks").value > 0.6
    assert compute(comparison, "depth_ks_within", "batch").value > 0.6


def test_figures_of_labels_that_are_not_there(judge, reference, fresh):
    cells = Cells(fresh.cells.counts, fresh.cells.genes, fresh.cells.labels[["batch"]])
    comparison = beside(judge, reference, Side(cells, fresh.features, fresh.weights))
    for name in ("gene_gene_correlation_within", "label_agreement_joint"):
        assert compute(comparison, name) is None
    for name in ("marker_overlap", "marker_fold_change_correlation", "label_agreement", "label_worst_gap"):
        assert compute(comparison, name, "cell_type") is None
        assert compute(comparison, name, "batch") is not None
    assert compute(comparison, "depth_ks_within", "cell_type") is None


def test_copies_of_training_cells(everything, judge, reference, fresh):
    found = {
        name: [
            compute(beside(judge, reference, system), name).value
            for system in (fresh, side(everything[:350], judge, "copies"))
        ]
        for name in ("nearest_training_ratio", "exact_duplicates", "near_duplicates", "membership_auroc")
    }
    assert found["nearest_training_ratio"] == [pytest.approx(1.0, abs=0.1), 0.0]
    assert found["exact_duplicates"] == [0.0, 1.0]
    assert found["near_duplicates"] == [pytest.approx(0.01, abs=0.03), 1.0]
    # 350 of 500 training cells are in the release
    assert found["membership_auroc"] == [pytest.approx(0.5, abs=0.06), pytest.approx(0.5 + 0.5 * 0.7, abs=0.04)]


def test_an_attacker_has_all_cells_of_a_system(everything, judge):
    # all 500 training cells are handed out, and 50 of them are compared
    held_out, copies = side(everything[500:600], judge, "held out"), side(everything[:500], judge, "copies")
    systems = {"ceiling": held_out, "copies": copies}
    splits = split_sides(held_out, systems, 50, 2, seed=0)
    assert len(splits[0].systems["copies"].cells) == 50
    (row,) = score([FIGURES["membership_auroc"]], judge, splits, held_out, systems, CONDITIONS)
    assert row.values["copies"].value > 0.99
    assert row.values["ceiling"].value == pytest.approx(0.5, abs=0.1)
    # what is compared of the copies gives away a tenth of the training cells
    part = compute(beside(judge, splits[0].reference, splits[0].systems["copies"]), "membership_auroc")
    assert part.value == pytest.approx(0.55, abs=0.08)


def test_every_split_attacks_other_training_cells(judge, reference, fresh):
    found = [compute(beside(judge, reference, fresh, split), "membership_auroc").value for split in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_held_out_cells_have_no_gap_to_themselves(judge, reference, fresh):
    assert compute(beside(judge, reference, reference), "label_worst_gap", "cell_type") is None
    assert compute(beside(judge, reference, fresh), "label_worst_gap", "cell_type") is not None


def test_labels_that_a_system_misses_count_as_failed(everything, judge, reference):
    later = everything[850:]
    few = np.flatnonzero(later.obs["batch"] == "two")[:4]
    missing = np.union1d(np.flatnonzero(later.obs["batch"] == "one"), few)
    whole, part = (beside(judge, reference, side(x, judge, "system")) for x in (later, later[missing]))
    share = (reference.cells.labels["batch"] == "one").mean()
    for name in ("marker_overlap", "marker_fold_change_correlation"):
        assert compute(part, name, "batch").value <= 0.5
    assert compute(part, "depth_ks_within", "batch").value == pytest.approx(1 - share, abs=0.15)
    assert compute(whole, "depth_ks_within", "batch").value < 0.2
    # one of two cell types: nothing to compare it with, and half of what goes together within types is not there
    one_type = beside(judge, reference, side(later[later.obs["cell_type"] == "B"], judge, "system"))
    assert compute(one_type, "marker_overlap", "cell_type").value == 0.0
    left = (reference.cells.labels["cell_type"] == "B").mean()
    assert 0.5 * left < compute(one_type, "gene_gene_correlation_within").value <= left
    renamed = later.copy()
    renamed.obs["cell_type"] = "neither"
    stranger = beside(judge, reference, side(renamed, judge, "system"))
    assert compute(stranger, "gene_gene_correlation_within").value == 0.0
    assert compute(stranger, "depth_ks_within", "cell_type").value == 1.0


def test_no_figures_of_memorisation_without_training_cells(judge, reference, fresh):
    blind = replace(judge, training=None)
    for figure in (f for f in FIGURES.values() if f.group == "memorisation"):
        assert compute(beside(blind, reference, fresh), figure.name) is None

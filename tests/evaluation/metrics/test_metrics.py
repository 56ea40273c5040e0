"""The registered metrics of genes, labels, memorisation and depth, on cells whose faults are known."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.bootstrap import Estimate
from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.compare import Comparison, Fitted, Side, take_split
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.placing import fit, fit_spaces, place
from scldm.evaluation.scoring import score

CONDITIONS = ["cell_type", "batch"]
PERFECT = {"higher": 1.0, "lower": 0.0}


@pytest.fixture(scope="module")
def everything(make_cells) -> ad.AnnData:
    # more counts per gene than in other tests, so that all metrics have something to compare
    return make_cells(1200, seed=21, n_genes=120)


def side(adata: ad.AnnData, fitted: Fitted | None, name: str) -> Side:
    cells = read_cells(adata, name, None, CONDITIONS, optional=True)
    spaces = fit_spaces(cells, None, 0) if fitted is None else fitted.spaces
    return place(cells, spaces, name, 0, 60)


@pytest.fixture(scope="module")
def fitted(everything) -> Fitted:
    train = everything[:500]
    spaces = fit_spaces(read_cells(train, "training", None, CONDITIONS, optional=False), None, 0)
    fitting = place(read_cells(train, "training", None, CONDITIONS, optional=False), spaces, "training", 0, 60)
    return fit(spaces, fitting, fitting, CONDITIONS)


@pytest.fixture(scope="module")
def reference(everything, fitted) -> Side:
    return side(everything[500:850], fitted, "reference")


@pytest.fixture(scope="module")
def fresh(everything, fitted) -> Side:
    return side(everything[850:], fitted, "fresh")


def beside(fitted: Fitted, reference: Side, system: Side, split: int = 0) -> Comparison:
    return Comparison(fitted, reference, system, release=system, split=split)


def compute(comparison: Comparison, name: str, *argument: str) -> Estimate | None:
    return METRICS[name].compute(comparison, *argument)


def arguments(name: str) -> list[tuple[str, ...]]:
    return [(condition,) for condition in CONDITIONS] if METRICS[name].scope == "condition" else [()]


@pytest.mark.parametrize("name", [m.info.name for m in METRICS.values() if m.info.group in {"genes", "depth"}])
def test_a_side_against_itself_is_perfect_in_every_resample(fitted, reference, name):
    for argument in arguments(name):
        found = compute(beside(fitted, reference, reference), name, *argument)
        perfect = PERFECT.get(METRICS[name].info.direction, 1.0)
        assert found.value == pytest.approx(perfect, abs=1e-9)
        np.testing.assert_allclose(found.replicates, perfect, atol=1e-9)


@pytest.mark.parametrize("name", [m.info.name for m in METRICS.values() if m.info.group not in {"distances"}])
def test_resamples_spread_round_the_value(fitted, reference, fresh, name):
    for argument in arguments(name):
        found = compute(beside(fitted, reference, fresh), name, *argument)
        assert found.replicates.shape == (60,)
        assert np.isfinite(found.replicates).all()
        if found.value not in (0.0, 1.0):  # shares of none or of all do not vary
            assert found.replicates.std() > 0
        assert found.interval[0] <= found.value <= found.interval[1]


def test_the_same_value_whatever_was_computed_before(fitted, reference, fresh, everything):
    other = side(everything[:350], fitted, "other")
    first = compute(beside(fitted, reference, fresh), "zero_fraction_mae")
    for reference_again in (fresh, other, reference):
        compute(beside(fitted, reference_again, other), "gene_mean_mae")
    again = compute(beside(fitted, reference, fresh), "zero_fraction_mae")
    assert again.value == first.value
    np.testing.assert_array_equal(again.replicates, first.replicates)


def test_genes_that_vary_independently_within_labels_are_seen(everything, fitted, reference):
    broken = everything[850:].copy()
    counts, rng = broken.X.toarray(), np.random.default_rng(0)
    for label in ("B", "T"):
        cells = np.flatnonzero(broken.obs["cell_type"] == label)
        counts[cells] = np.stack([rng.permutation(column) for column in counts[cells].T], axis=1)
    broken.X = csr_matrix(counts)
    comparison = beside(fitted, reference, side(broken, fitted, "broken"))
    assert compute(comparison, "gene_gene_correlation_within").value < 0.3
    assert compute(comparison, "marker_fold_change_correlation", "cell_type").value > 0.9
    real = beside(fitted, reference, side(everything[850:], fitted, "fresh"))
    assert compute(real, "gene_gene_correlation_within").value > 0.8


def test_swapped_labels_turn_fold_changes_round(everything, fitted, reference):
    swapped = everything[850:].copy()
    swapped.obs["cell_type"] = swapped.obs["cell_type"].cat.rename_categories({"B": "T", "T": "B"})
    comparison = beside(fitted, reference, side(swapped, fitted, "swapped"))
    assert compute(comparison, "marker_fold_change_correlation", "cell_type").value < -0.9
    assert compute(comparison, "marker_overlap", "cell_type").value < 0.1
    assert compute(comparison, "label_agreement", "cell_type").value < 0.05
    assert compute(comparison, "label_worst_gap", "cell_type").value > 0.9
    joint = compute(comparison, "label_agreement_joint").value
    assert joint <= compute(comparison, "label_agreement", "cell_type").value


def test_cells_of_half_the_depth(everything, fitted, reference):
    thin = everything[850:].copy()
    counts = thin.X.toarray().astype(int)
    thin.X = csr_matrix(np.random.default_rng(0).binomial(counts, 0.5).astype(np.float32))
    comparison = beside(fitted, reference, side(thin, fitted, "thin"))
    assert compute(comparison, "depth_ratio").value == pytest.approx(0.5, abs=0.05)
    assert compute(comparison, "depth_ks").value > 0.6
    assert compute(comparison, "depth_ks_within", "batch").value > 0.6


def test_metrics_of_labels_that_are_not_there(fitted, reference, fresh):
    cells = Cells(fresh.cells.counts, fresh.cells.genes, fresh.cells.labels[["batch"]])
    comparison = beside(fitted, reference, Side(cells, fresh.features, fresh.weights))
    for name in ("gene_gene_correlation_within", "label_agreement_joint"):
        assert compute(comparison, name) is None
    for name in ("marker_overlap", "marker_fold_change_correlation", "label_agreement", "label_worst_gap"):
        assert compute(comparison, name, "cell_type") is None
        assert compute(comparison, name, "batch") is not None
    assert compute(comparison, "depth_ks_within", "cell_type") is None


def test_copies_of_training_cells(everything, fitted, reference, fresh):
    found = {
        name: [
            compute(beside(fitted, reference, system), name).value
            for system in (fresh, side(everything[:350], fitted, "copies"))
        ]
        for name in ("nearest_training_ratio", "exact_duplicates", "near_duplicates", "membership_auroc")
    }
    assert found["nearest_training_ratio"] == [pytest.approx(1.0, abs=0.1), 0.0]
    assert found["exact_duplicates"] == [0.0, 1.0]
    assert found["near_duplicates"] == [pytest.approx(0.01, abs=0.03), 1.0]
    # 350 of 500 training cells are in the release
    assert found["membership_auroc"] == [pytest.approx(0.5, abs=0.06), pytest.approx(0.5 + 0.5 * 0.7, abs=0.04)]


def test_an_attacker_has_all_cells_of_a_system(everything, fitted):
    # all 500 training cells are handed out, and 50 of them are compared
    held_out, copies = side(everything[500:600], fitted, "held out"), side(everything[:500], fitted, "copies")
    systems = {"ceiling": held_out, "copies": copies}
    splits = [take_split(held_out, systems, 50, number, seed=0) for number in range(2)]
    assert len(splits[0].systems["copies"].cells) == 50
    records = score([METRICS["membership_auroc"]], fitted, splits, held_out, systems, CONDITIONS)
    values = {record.system: record.value for record in records}
    assert values["copies"] > 0.99
    assert values["ceiling"] == pytest.approx(0.5, abs=0.1)
    # what is compared of the copies gives away a tenth of the training cells
    part = compute(beside(fitted, splits[0].reference, splits[0].systems["copies"]), "membership_auroc")
    assert part.value == pytest.approx(0.55, abs=0.08)


def test_every_split_attacks_other_training_cells(fitted, reference, fresh):
    found = [compute(beside(fitted, reference, fresh, split), "membership_auroc").value for split in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_held_out_cells_have_no_gap_to_themselves(fitted, reference, fresh):
    assert compute(beside(fitted, reference, reference), "label_worst_gap", "cell_type") is None
    assert compute(beside(fitted, reference, fresh), "label_worst_gap", "cell_type") is not None


def test_labels_that_a_system_misses_count_as_failed(everything, fitted, reference):
    later = everything[850:]
    few = np.flatnonzero(later.obs["batch"] == "two")[:4]
    missing = np.union1d(np.flatnonzero(later.obs["batch"] == "one"), few)
    whole, part = (beside(fitted, reference, side(x, fitted, "system")) for x in (later, later[missing]))
    share = (reference.cells.labels["batch"] == "one").mean()
    for name in ("marker_overlap", "marker_fold_change_correlation"):
        assert compute(part, name, "batch").value <= 0.5
    assert compute(part, "depth_ks_within", "batch").value == pytest.approx(1 - share, abs=0.15)
    assert compute(whole, "depth_ks_within", "batch").value < 0.2
    # one of two cell types: nothing to compare it with, and half of what goes together within types is not there
    one_type = beside(fitted, reference, side(later[later.obs["cell_type"] == "B"], fitted, "system"))
    assert compute(one_type, "marker_overlap", "cell_type").value == 0.0
    left = (reference.cells.labels["cell_type"] == "B").mean()
    assert 0.5 * left < compute(one_type, "gene_gene_correlation_within").value <= left
    renamed = later.copy()
    renamed.obs["cell_type"] = "neither"
    stranger = beside(fitted, reference, side(renamed, fitted, "system"))
    assert compute(stranger, "gene_gene_correlation_within").value == 0.0
    assert compute(stranger, "depth_ks_within", "cell_type").value == 1.0


def test_no_metrics_of_memorisation_without_training_cells(fitted, reference, fresh):
    blind = replace(fitted, training=None)
    for metric in (m for m in METRICS.values() if m.info.group == "memorisation"):
        assert compute(beside(blind, reference, fresh), metric.info.name) is None

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.labels import frequent_labels
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.markers import detected_genes, fold_changes, shared_markers, slopes, top_genes
from scldm.evaluation.spaces import FeatureSpace


def test_labels_with_enough_cells():
    labels = np.array(["T"] * 2 + ["B"] * 3 + [None] * 9, dtype=object)
    assert frequent_labels(labels, 2) == ["B", "T"]
    assert frequent_labels(labels, 3) == ["B"]
    assert frequent_labels(labels) == []
    assert frequent_labels(np.array([None], dtype=object), 1) == []


def test_genes_that_a_tenth_of_a_label_shows():
    counts = np.zeros((30, 3))
    counts[0, 0] = 1  # 1 of 10 cells of B
    counts[10:12, 1] = 3  # 2 of 20 cells of T
    counts[12, 2] = 9  # 1 of 20
    labels = np.array(["B"] * 10 + ["T"] * 20, dtype=object)
    np.testing.assert_array_equal(detected_genes(csr_matrix(counts), labels, ["B", "T"]), [0, 1])
    np.testing.assert_array_equal(detected_genes(csr_matrix(counts), labels, ["T"]), [1])
    assert len(detected_genes(csr_matrix(counts), labels, [])) == 0


def test_fold_changes_by_hand():
    values = csr_matrix(np.array([[1.0, 0.0], [3.0, 2.0], [0.0, 4.0], [9.0, 9.0], [5.0, 0.0]]))
    labels = np.array(["B", "B", "T", None, "NK"], dtype=object)
    chosen = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=bool)
    (b, t) = fold_changes(values, labels, ["B", "T"], chosen)
    np.testing.assert_allclose(b, [[2.0 - 2.5, 1.0 - 2.0], [3.0 - 2.5, 2.0 - 2.0], [2.0, 1.0], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(
        t, [[0.0 - 3.0, 4.0 - 2 / 3], [0.0 - 4.0, 4.0 - 1.0], [-2.0, -1.0], [0.0, 0.0]], rtol=1e-6
    )


def test_fold_changes_in_every_row_are_those_of_the_chosen_cells(draw):
    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, 2.0, size=(60, 7)) * rng.integers(0, 2, size=(60, 7))
    labels = rng.choice(np.array(["B", "T", "NK", None], dtype=object), 60)
    chosen, _ = draw(60, 40, 0)
    for label, found in zip(["NK", "B"], fold_changes(csr_matrix(values), labels, ["NK", "B"], chosen), strict=True):
        for row, changes in zip(chosen, found, strict=True):
            own = row & (labels == label)
            others = row & (labels != label) & np.array([one is not None for one in labels])
            np.testing.assert_allclose(changes, values[own].mean(axis=0) - values[others].mean(axis=0), rtol=1e-5)


def test_slopes_are_those_of_least_squares_through_the_origin():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 3, 40))
    y = np.array([[2.0], [0.3], [-1.0]]) * x + noise
    expected = [np.linalg.lstsq(one[:, None], other, rcond=None)[0][0] for one, other in zip(x, y, strict=True)]
    np.testing.assert_allclose(slopes(y, x), expected)
    np.testing.assert_allclose(slopes(0.5 * x, x), 0.5)
    np.testing.assert_array_equal(slopes(y, np.zeros_like(x)), 0.0)


def cells_of(log1p_cp10k: np.ndarray, labels: np.ndarray) -> Side:
    """Make cells with given log1p CP10K; a last gene takes what is missing of 10,000 counts."""
    counts = np.expm1(log1p_cp10k)
    rest = 1e4 - counts.sum(axis=1, keepdims=True)
    assert (rest > 0).all()
    genes = pd.Index([f"gene{i}" for i in range(counts.shape[1] + 1)])
    cells = Cells(csr_matrix(np.hstack([counts, rest])), genes, pd.DataFrame({"cell_type": labels}))
    return Side(cells, {"pca": np.zeros((len(labels), 1))})


@pytest.fixture(scope="module")
def logs_and_labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.array(["B", "T", "NK"], dtype=object), 50)
    effects = {label: rng.normal(size=30) for label in ("B", "T", "NK")}
    logs = np.stack([2.5 + 0.7 * effects[label] for label in labels]) + rng.normal(0.0, 0.4, size=(150, 30))
    return np.clip(logs, 0.0, None), labels


def compare(real: Side, system: Side) -> Comparison:
    # the gene that takes the rest is not among those that the fitting cells show
    counts = real.cells.counts.toarray()
    counts[:, -1] = 0.0
    fitting = Side(Cells(csr_matrix(counts), real.cells.genes, real.cells.labels), real.features)
    own = (np.arange(len(system) + len(real)) < len(system))[None]
    fitted = Fitted({"pca": FeatureSpace(np.zeros(1), np.ones((1, 1)))}, {}, fitting, None)
    return Comparison(fitted, system.and_then(real), own, ~own, real)


@pytest.mark.parametrize("factor", [1.0, 0.5, 1.4, -0.5])
def test_the_slope_says_by_how_much_fold_changes_are_attenuated(logs_and_labels, factor):
    logs, labels = logs_and_labels
    real = cells_of(logs, labels)
    centre = 3.0 if factor < 0 else 0.0  # logs are not negative
    system = cells_of(centre + factor * logs, labels)

    def compute(name: str, own: Side) -> float:
        return METRICS[name].compute(compare(real, own), "cell_type")[0]

    assert compute("marker_fold_change_slope", real) == pytest.approx(1.0)
    assert compute("marker_fold_change_slope", system) == pytest.approx(factor, rel=1e-4)
    # the correlation and the markers do not see by how much
    assert compute("marker_fold_change_correlation", system) == pytest.approx(np.sign(factor), rel=1e-6)
    if factor > 0:
        assert compute("marker_overlap", system) == 1.0


def test_a_missed_label_counts_as_no_slope(logs_and_labels):
    logs, labels = logs_and_labels
    real = cells_of(logs, labels)
    for n_left, expected in ((5, 3), (4, 2)):
        left = np.concatenate([np.arange(n_left), np.arange(50, 150)])
        found = METRICS["marker_fold_change_slope"].compute(compare(real, real.take(left)), "cell_type")
        assert found == pytest.approx(expected / 3, abs=0.12)


def test_no_markers_of_a_single_label_or_of_labels_that_are_rare(logs_and_labels):
    logs, labels = logs_and_labels
    single, rare = labels.copy(), labels.copy()
    single[:] = "B"
    rare[:] = np.resize(np.array([f"type{i}" for i in range(10)], dtype=object), 150)  # fifteen cells of each
    for name in ("marker_fold_change_correlation", "marker_fold_change_slope", "marker_overlap"):
        for column in (single, rare):
            real = cells_of(logs, column)
            assert METRICS[name].compute(compare(real, real), "cell_type") is None
        real = cells_of(logs, labels)
        assert METRICS[name].compute(compare(real, real), "batch") is None


def test_markers_are_the_genes_with_the_largest_fold_changes():
    reference = np.array([[5.0, 4.0, 3.0, 0.0, -9.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(top_genes(reference, 2), [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]])
    assert top_genes(reference).all()  # fewer genes than markers
    rng = np.random.default_rng(0)
    changes = rng.normal(size=(1, 500))
    assert shared_markers(changes, changes)[0] == 1.0
    assert shared_markers(-changes, changes)[0] == 0.0
    half = changes.copy()
    best = np.argsort(-changes[0])[:10]
    half[0, best] = -5.0  # the ten best of twenty are lost, and the next ten take their place
    assert shared_markers(half, changes)[0] == pytest.approx(0.5)


def test_shared_markers_in_every_row():
    rng = np.random.default_rng(0)
    system, reference = rng.normal(size=(2, 3, 60))
    best = [[set(np.argsort(-row)[:20]) for row in side] for side in (system, reference)]
    expected = [len(own & real) / 20 for own, real in zip(*best, strict=True)]
    np.testing.assert_allclose(shared_markers(system, reference), expected)

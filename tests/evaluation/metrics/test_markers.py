import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.labels import frequent_labels
from scldm.evaluation.metrics.markers import detected_genes, fold_changes, shared_markers, top_genes


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


def test_fold_changes_by_hand_and_in_a_resample():
    values = csr_matrix(np.array([[1.0, 0.0], [3.0, 2.0], [0.0, 4.0], [9.0, 9.0], [5.0, 0.0]]))
    labels = np.array(["B", "B", "T", None, "NK"], dtype=object)
    weights = np.array([[0.0, 2.0, 1.0, 7.0, 3.0]])
    (b, t) = fold_changes(values, labels, ["B", "T"], weights)
    np.testing.assert_allclose(b, [[2.0 - 2.5, 1.0 - 2.0], [3.0 - 15 / 4, 2.0 - 4 / 4]], rtol=1e-6)
    np.testing.assert_allclose(t, [[0.0 - 3.0, 4.0 - 2 / 3], [0.0 - 21 / 5, 4.0 - 4 / 5]], rtol=1e-6)


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

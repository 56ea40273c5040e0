from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.bootstrap import draw_weights, weighted_mean
from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Fitted, Side
from scldm.evaluation.labels import LabelFidelity, fit_classifier
from scldm.evaluation.metrics.labels import agreement, combined_labels, label_fidelity, recognised, worst_gap
from scldm.evaluation.records import Value

# Cells are points on a line: a "B" cell is recognised when it is left of zero, and a "young" one below zero.
TYPES, AGES = np.array(["B", "T"]), np.array(["young", "old"])


def side(x: list[float], cell_type: list, y: list[float] | None = None, age: list | None = None, depth: float = 10.0):
    labels = {"cell_type": np.array(cell_type, dtype=object)}
    if age is not None:
        labels["age"] = np.array(age, dtype=object)
    counts = csr_matrix(np.full((len(x), 1), depth, dtype=np.float32))
    features = np.column_stack([x, np.zeros(len(x)) if y is None else y]).astype(np.float64)
    cells = Cells(counts, pd.Index(["gene"]), pd.DataFrame(labels))
    return Side(cells, {"pca": features}, draw_weights(len(x), np.random.default_rng(0), 50))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    grid = np.array([[x, y] for x in (-2.0, -1.0, 1.0, 2.0) for y in (-2.0, -1.0, 1.0, 2.0)] * 10)
    classifiers = {
        "cell_type": fit_classifier(grid, TYPES[(grid[:, 0] > 0).astype(int)].astype(object)),
        "age": fit_classifier(grid, AGES[(grid[:, 1] > 0).astype(int)].astype(object)),
    }
    nothing = side([0.0], ["B"])
    return Fitted({"pca": Line()}, classifiers, nothing, None)


class Line:
    description = "a plane"

    def transform(self, cells: Cells) -> np.ndarray:
        raise NotImplementedError


def test_a_classifier_recognises_the_labels_it_was_trained_on():
    features = np.array([[-1.0], [-1.2], [1.0], [1.3], [50.0]])
    classifier = fit_classifier(features, np.array(["B", "B", "T", "T", None], dtype=object))
    assert classifier.predict(np.array([[-2.0], [2.0]])).tolist() == ["B", "T"]
    assert fit_classifier(features, np.array(["B"] * 4 + [None], dtype=object)) is None


def test_recognised_cells_are_right_in_all_columns(fitted):
    cells = side([-1, -1, 1, 1], ["B", "T", "T", None], [-1, -1, -1, 1], ["young", "young", "old", "old"])
    known, correct = recognised(fitted, cells, ["cell_type"])
    assert (known.tolist(), correct.tolist()) == ([0, 1, 2], [True, False, True])
    known, correct = recognised(fitted, cells, ["cell_type", "age"])
    assert (known.tolist(), correct.tolist()) == ([0, 1, 2], [True, False, False])
    assert recognised(fitted, cells, ["tissue"]) is None
    assert recognised(fitted, side([1.0], ["T"]), ["cell_type", "age"]) is None
    assert recognised(fitted, side([1.0], [None]), ["cell_type"]) is None


def test_agreement_has_the_label_shares_of_held_out_cells(fitted):
    # B cells are recognised in 100 % of cases, T cells in 50 %; real cells are three quarters B
    real = side([-1] * 60 + [1] * 10 + [-1] * 10, ["B"] * 60 + ["T"] * 20)
    balanced = side([-1] * 40 + [1] * 20 + [-1] * 20 + [1] * 9, ["B"] * 40 + ["T"] * 40 + ["NK"] * 9)
    found = agreement(fitted, real, balanced, ["cell_type"])
    assert found.value == pytest.approx(0.875)
    assert found.replicates.mean() == pytest.approx(0.875, abs=0.02)
    assert found.interval[0] < 0.875 < found.interval[1]
    # labels that only one side has do not count
    only_t = side([1] * 20 + [-1] * 20, ["T"] * 40)
    assert agreement(fitted, real, only_t, ["cell_type"]).value == pytest.approx(0.5)
    assert agreement(fitted, real, side([1.0], ["NK"]), ["cell_type"]).value == 0.0
    assert agreement(fitted, real, side([1.0], [None]), ["cell_type"]) is None
    assert agreement(fitted, real, balanced, ["cell_type", "age"]) is None


def test_agreement_of_held_out_cells_is_their_share_recognised(fitted):
    real = side([-1] * 20 + [1] * 30, ["B"] * 25 + ["T"] * 20 + [None] * 5, [-1, 1] * 25, ["young"] * 40 + ["old"] * 10)
    for conditions in (["cell_type"], ["cell_type", "age"]):
        known, correct = recognised(fitted, real, conditions)
        found, expected = agreement(fitted, real, real, conditions), weighted_mean(correct, real.weights[:, known])
        assert found.value == pytest.approx(expected.value)
        np.testing.assert_allclose(found.replicates, expected.replicates)


def test_a_label_that_a_resample_lacks_does_not_count_in_it(fitted):
    real = side([-1] * 5 + [1] * 5, ["B"] * 5 + ["T"] * 5)
    one = side([-1] * 10 + [-1], ["B"] * 10 + ["T"])
    drawn = one.weights[:, 10] > 0
    assert 0 < drawn.sum() < len(drawn)
    np.testing.assert_array_equal(agreement(fitted, real, one, ["cell_type"]).replicates[~drawn], 1.0)


def test_combined_labels_need_every_column():
    cells = side([1, 1], ["B", None], None, ["young", "old"])
    assert combined_labels(cells, ["cell_type", "age"]).tolist() == ["B x young", None]
    assert combined_labels(side([1.0], ["B"]), ["cell_type", "age"]).tolist() == [None]


def test_the_worst_gap_is_that_of_the_worst_label_in_either_direction(fitted):
    # real: 20 of 25 B recognised, 20 of 40 T; generated: all B (too well), 36 of 40 T (too well)
    real = side([-1] * 20 + [1] * 5 + [1] * 20 + [-1] * 20, ["B"] * 25 + ["T"] * 40)
    over = side([-1] * 25 + [1] * 36 + [-1] * 4, ["B"] * 25 + ["T"] * 40)
    found = worst_gap(fitted, real, over, "cell_type")
    assert found.value == pytest.approx(0.4)
    assert found.interval[0] < 0.4 < found.interval[1]
    under = side([1] * 20 + [-1] * 5 + [1] * 20 + [-1] * 20, ["B"] * 25 + ["T"] * 40)
    assert worst_gap(fitted, real, under, "cell_type").value == pytest.approx(0.6)
    same = worst_gap(fitted, real, real, "cell_type")
    assert same.value == 0.0
    np.testing.assert_array_equal(same.replicates, 0.0)


def test_labels_of_few_cells_make_no_gap(fitted):
    real = side([-1] * 20 + [1] * 30, ["B"] * 20 + ["T"] * 30)
    wrong_b = side([1] * 60 + [1] * 20, ["B"] * 60 + ["T"] * 20)
    assert worst_gap(fitted, real, wrong_b, "cell_type").value == 0.0  # 20 real B cells are not more than 20
    few = side([1] * 19, ["T"] * 19)
    assert worst_gap(fitted, real, few, "cell_type") is None
    assert worst_gap(fitted, real, few, "age") is None


def test_the_table_of_labels_and_combinations(fitted):
    real = side(
        [-1] * 30 + [1] * 25,
        ["B"] * 30 + ["T"] * 25,
        [-1] * 30 + [1] * 20 + [-1] * 5,
        ["young"] * 30 + ["old"] * 25,
    )
    system = side([-1] * 3 + [1] + [1] * 2, ["B"] * 4 + ["NK"] * 2, [-1.0] * 6, ["young"] * 6, depth=25.0)
    bare = side([1.0], [None])
    rows = {
        (row.condition, row.label): row
        for row in label_fidelity(fitted, real, {"ours": system, "bare": bare}, ["cell_type", "age", "batch"])
    }
    assert list(rows) == [
        ("cell_type", "B"),
        ("cell_type", "T"),
        ("cell_type", "NK"),
        ("age", "young"),
        ("age", "old"),
        ("cell_type x age", "B x young"),
        ("cell_type x age", "T x old"),
        ("cell_type x age", "NK x young"),
    ]
    b, t, nk = (rows["cell_type", label] for label in ("B", "T", "NK"))
    assert (b.n_real, b.n_generated, b.rare) == (30, {"ours": 4, "bare": 0}, False)
    assert b.agreement["real"].value == 1.0
    assert b.agreement["ours"].value == 0.75
    assert b.agreement["ours"].low < 0.75 < b.agreement["ours"].high
    assert b.agreement["bare"] is None
    assert b.depth_ratio == {"ours": 2.5, "bare": None}
    assert (t.n_generated["ours"], t.agreement["ours"], t.depth_ratio["ours"]) == (0, None, None)
    assert (nk.n_real, nk.rare, nk.agreement["real"], nk.agreement["ours"].value) == (0, True, None, 0.0)
    assert rows["age", "old"].agreement["real"].value == 0.8
    assert rows["cell_type x age", "T x old"].agreement["real"].value == 0.8
    assert rows["cell_type x age", "B x young"].agreement["ours"].value == 0.75


def test_a_row_survives_being_written_as_plain_numbers():
    row = LabelFidelity(
        "cell_type", "B", 3, {"ours": 2}, True, {"real": Value(0.5, 0.1, 0.9), "ours": None}, {"ours": 1.5}
    )
    assert LabelFidelity.from_dict(asdict(row)) == row

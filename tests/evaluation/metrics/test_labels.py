from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import binomtest

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.labels import LabelFidelity, fit_classifier
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.labels import (
    agreement,
    combined_labels,
    label_fidelity,
    proportion_interval,
    recognised,
    worst_gap,
)
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
    return Side(cells, {"pca": features})


def compare(fitted: Fitted, real: Side, system: Side, fitting: Side | None = None) -> Comparison:
    """Put a system beside real cells, all of both in one row; labels are judged as frequent as these, or others."""
    own = (np.arange(len(system) + len(real)) < len(system))[None]
    fitted = Fitted(fitted.spaces, fitted.classifiers, real if fitting is None else fitting, None)
    return Comparison(fitted, system.and_then(real), own, ~own, real)


def alone(comparison: Comparison, row: int) -> Comparison:
    """Compare only the cells that are chosen in a row."""
    chosen = np.flatnonzero(comparison.system[row] | comparison.reference[row])
    masks = (side[row, chosen][None] for side in (comparison.system, comparison.reference))
    return Comparison(comparison.fitted, comparison.pool.take(chosen), *masks, comparison.held_out)


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
    assert agreement(compare(fitted, real, balanced), ["cell_type"]) == pytest.approx(0.875)
    # labels that only one side has do not count
    only_t = side([1] * 20 + [-1] * 20, ["T"] * 40)
    assert agreement(compare(fitted, real, only_t), ["cell_type"]) == pytest.approx(0.5)
    assert agreement(compare(fitted, real, side([1.0], ["NK"])), ["cell_type"]) == 0.0
    assert agreement(compare(fitted, real, side([1.0], [None])), ["cell_type"]) is None
    assert agreement(compare(fitted, real, balanced), ["cell_type", "age"]) is None
    unlabelled = side([1.0], [None])
    assert agreement(compare(fitted, unlabelled, unlabelled), ["cell_type"]) is None


def test_agreement_of_cells_with_the_shares_of_the_reference_is_their_share_recognised(fitted):
    real = side([-1] * 20 + [1] * 30, ["B"] * 25 + ["T"] * 20 + [None] * 5, [-1, 1] * 25, ["young"] * 40 + ["old"] * 10)
    for conditions in (["cell_type"], ["cell_type", "age"]):
        _, correct = recognised(fitted, real, conditions)
        assert 0 < correct.mean() < 1
        assert agreement(compare(fitted, real, real), conditions) == pytest.approx(correct.mean())


def random_sides(n_cells: int, seed: int) -> Side:
    """Cells of two types and two ages, some without, of which about two in three are recognised."""
    rng = np.random.default_rng(seed)
    types = rng.choice(["B", "B", "B", "T", None], n_cells).tolist()
    ages = rng.choice(["young", "old", "old", None], n_cells).tolist()
    return side(rng.choice([-1.0, 1.0], n_cells).tolist(), types, rng.choice([-1.0, 1.0], n_cells).tolist(), ages)


def test_every_row_is_of_the_chosen_cells(fitted, draw):
    system, reference = draw(500, 200, 180)
    pool = random_sides(500, seed=1)
    fitting = random_sides(400, seed=2)
    fitted = Fitted(fitted.spaces, fitted.classifiers, fitting, None)
    comparison = Comparison(fitted, pool, system, reference, fitting)
    measures = {
        "agreement": lambda c: agreement(c, ["cell_type"]),
        "joint agreement": lambda c: agreement(c, ["cell_type", "age"]),
        "worst gap": lambda c: worst_gap(c, "age"),
        "shares": METRICS["label_shares"].compute,
    }
    for name, measure in measures.items():
        found = measure(comparison)
        np.testing.assert_allclose(found, [measure(alone(comparison, row))[0] for row in range(4)], err_msg=name)
        assert len(np.unique(found)) == 4


def test_agreement_of_draws_spreads_round_that_of_all_cells(fitted, draw):
    # labels as easily recognised on both sides, but not as frequent
    pool = side([-1] * 400 + [1] * 100 + [-1] * 100, ["B"] * 400 + ["T"] * 200)
    system, reference = draw(600, 150, 150, n_rows=100)
    found = agreement(Comparison(fitted, pool, system, reference, pool), ["cell_type"])
    assert found.mean() == pytest.approx(400 / 600 + 0.5 * 200 / 600, abs=0.01)
    assert 0 < found.std() < 0.05


def test_a_label_that_a_draw_lacks_does_not_count_in_it(fitted):
    pool = side([-1] * 10 + [-1] + [-1] * 5 + [1] * 5, ["B"] * 10 + ["T"] + ["B"] * 5 + ["T"] * 5)
    system, reference = np.zeros((2, 2, 21), dtype=bool)
    system[:, :10], reference[:, 11:] = True, True
    system[1, 9:11] = [False, True]
    found = agreement(Comparison(fitted, pool, system, reference, pool), ["cell_type"])
    np.testing.assert_allclose(found, [1.0, 0.5])


def test_label_shares_by_hand(fitted):
    def shares(real: Side, system: Side) -> float:
        return METRICS["label_shares"].compute(compare(fitted, real, system))[0]

    real = side([0.0] * 10, ["B"] * 6 + ["T"] * 4)
    assert shares(real, real) == 0.0
    assert shares(real, side([0.0] * 5, ["B"] * 3 + ["T"] * 2)) == pytest.approx(0.0)
    assert shares(real, side([0.0] * 10, ["B"] * 9 + ["T"])) == pytest.approx(0.5 * (0.09 / 1.5 + 0.09 / 0.5))
    three = side([0.0] * 10, ["B"] * 5 + ["T"] * 3 + ["NK"] * 2)
    assert shares(real, three) == pytest.approx(0.5 * (0.01 / 1.1 + 0.01 / 0.7 + 0.2))
    assert shares(three, real) == pytest.approx(shares(real, three))
    # of those that have a label: T is missed, which adds half its share
    assert shares(real, side([0.0] * 10, ["B"] * 6 + [None] * 4)) == pytest.approx(0.5 * (0.16 / 1.6 + 0.4))
    assert shares(real, side([0.0] * 2, ["NK"] * 2)) == 1.0
    # of two columns it is their combinations that count
    crossed = side([0.0] * 4, ["B", "B", "T", "T"], None, ["young", "old", "young", "old"])
    sorted_ = side([0.0] * 4, ["B", "B", "T", "T"], None, ["young", "young", "old", "old"])
    assert shares(crossed, sorted_) == pytest.approx(1 / 3)


def test_no_shares_without_labels(fitted):
    unlabelled = side([1.0] * 2, [None] * 2)
    assert METRICS["label_shares"].compute(compare(fitted, unlabelled, unlabelled)) is None
    typed, aged = side([1.0], ["B"]), side([1.0], ["B"], None, ["old"])
    only_aged = Side(Cells(aged.cells.counts, aged.cells.genes, aged.cells.labels[["age"]]), aged.features)
    assert METRICS["label_shares"].compute(compare(fitted, typed, only_aged)) is None


def test_the_joint_agreement_needs_two_conditions_with_classifiers(fitted):
    joint = METRICS["label_agreement_joint"].compute
    both = random_sides(60, seed=3)
    assert joint(compare(fitted, both, both)) == pytest.approx(recognised(fitted, both, ["cell_type", "age"])[1].mean())
    one = side([1.0] * 3, ["T"] * 3)
    assert joint(compare(fitted, one, one)) is None
    single = Fitted(fitted.spaces, {"age": fitted.classifiers["age"]}, fitted.fitting, None)
    assert joint(compare(single, both, both)) is None
    # a system that lacks one of three conditions has nothing to be held against the ceiling's agreement of all
    labels = both.cells.labels.assign(kind=both.cells.labels["cell_type"])
    three = Side(Cells(both.cells.counts, both.cells.genes, labels), both.features)
    judged = fitted.classifiers | {"kind": fitted.classifiers["cell_type"]}
    every = Fitted(fitted.spaces, judged, fitted.fitting, None)
    assert joint(compare(every, three, three)) is not None
    assert joint(compare(every, three, both)) is None


def test_combined_labels_need_every_column():
    cells = side([1, 1], ["B", None], None, ["young", "old"])
    assert combined_labels(cells, ["cell_type", "age"]).tolist() == ["B x young", None]
    assert combined_labels(side([1.0], ["B"]), ["cell_type", "age"]).tolist() == [None]


def test_the_worst_gap_is_that_of_the_worst_label_in_either_direction(fitted):
    # real: 20 of 25 B recognised, 20 of 40 T; generated: all B (too well), 36 of 40 T (too well)
    real = side([-1] * 20 + [1] * 5 + [1] * 20 + [-1] * 20, ["B"] * 25 + ["T"] * 40)
    over = side([-1] * 25 + [1] * 36 + [-1] * 4, ["B"] * 25 + ["T"] * 40)
    assert worst_gap(compare(fitted, real, over), "cell_type") == pytest.approx(0.4)
    under = side([1] * 20 + [-1] * 5 + [1] * 20 + [-1] * 20, ["B"] * 25 + ["T"] * 40)
    assert worst_gap(compare(fitted, real, under), "cell_type") == pytest.approx(0.6)
    assert worst_gap(compare(fitted, real, real), "cell_type") == 0.0


def of_two_types(n_b: int, n_cells: int, x: float = -1.0) -> Side:
    """Cells of two types, of which only B ones may not be as they should."""
    return side([x] * n_b + [1.0] * (n_cells - n_b), ["B"] * n_b + ["T"] * (n_cells - n_b))


def test_labels_of_few_cells_make_no_gap(fitted):
    def gap(n_system: int, n_reference: int, n_fitting: int, n_cells: int = 100) -> float:
        sides = of_two_types(n_reference, n_cells), of_two_types(n_system, n_cells, 1.0), of_two_types(n_fitting, 200)
        return worst_gap(compare(fitted, *sides), "cell_type")[0]

    assert gap(10, 10, 40) == 1.0
    # of a hundred cells twenty are expected where forty of two hundred fitting cells have the label
    assert gap(40, 40, 39) == 0.0
    assert gap(40, 40, 40, n_cells=99) == 0.0
    assert gap(9, 40, 40) == 0.0
    assert gap(40, 9, 40) == 0.0


def test_no_gap_without_a_label_to_judge(fitted):
    real = side([-1] * 19 + [1] * 19 + [0] * 2, ["B"] * 19 + ["T"] * 19 + [None] * 2)
    assert worst_gap(compare(fitted, real, real), "cell_type") is None
    assert worst_gap(compare(fitted, real, real), "age") is None
    only_b, only_t = side([-1] * 60, ["B"] * 60), side([1] * 60, ["T"] * 60)
    assert worst_gap(compare(fitted, only_b, only_t), "cell_type") == 0.0
    aged = side([-1] * 60, ["B"] * 60, None, ["old"] * 60)
    assert worst_gap(compare(fitted, aged, aged, fitting=only_b), "age") is None


def test_labels_are_judged_by_their_share_of_the_fitting_cells_however_many_are_drawn(fitted, draw):
    fitting = side([0.0] * 100, ["T"] * 40 + ["B"] * 30 + ["NK"] * 29 + [None])
    pool = side([0.0] * 200, ["NK"] * 190 + ["T"] * 10)
    fitted = Fitted(fitted.spaces, fitted.classifiers, fitting, None)

    def judged(n_cells: int, condition: str = "cell_type") -> list[str] | None:
        return Comparison(fitted, pool, *draw(200, 40, n_cells), pool).judged_labels(condition)

    assert judged(20) == []
    assert judged(49) == []
    assert judged(50) == ["T"]
    assert judged(66) == ["T"]
    assert judged(67) == judged(68) == ["B", "T"]
    assert judged(69) == ["B", "NK", "T"]
    assert judged(69, "age") is None
    aged = side([0.0] * 200, ["B"] * 200, None, ["old"] * 200)
    for of_fitting, of_pool, of_held_out in ((aged, aged, pool), (aged, pool, aged), (fitting, aged, aged)):
        one = Fitted(fitted.spaces, fitted.classifiers, of_fitting, None)
        assert Comparison(one, of_pool, *draw(200, 40, 40), of_held_out).judged_labels("age") is None
    one = Fitted(fitted.spaces, fitted.classifiers, aged, None)
    assert Comparison(one, aged, *draw(200, 40, 40), aged).judged_labels("age") == ["old"]


def test_the_interval_of_a_share_is_the_exact_one():
    for n_found, n in ((0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (170, 400)):
        expected = binomtest(n_found, n).proportion_ci(0.95, method="exact")
        assert proportion_interval(n_found, n) == pytest.approx((expected.low, expected.high))


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
    exact = binomtest(3, 4).proportion_ci(0.95, method="exact")
    assert asdict(b.agreement["ours"]) == pytest.approx({"value": 0.75, "low": exact.low, "high": exact.high})
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


def test_few_cells_may_differ_by_chance_and_many_do_not():
    def row(n: int, own: Value | None) -> LabelFidelity:
        return LabelFidelity("cell_type", "B", n, {"ours": n}, False, {"real": Value(0.9), "ours": own}, {"ours": 1.0})

    assert row(10, Value(0.9)).p_value("ours") == 1.0
    # Fisher's exact test of 9 and 7 of ten, and of 900 and 700 of a thousand
    assert row(10, Value(0.7)).p_value("ours") == pytest.approx(0.5820, abs=1e-4)
    assert row(1000, Value(0.7)).p_value("ours") < 1e-6
    assert row(10, None).p_value("ours") is None
    assert row(10, Value(0.9)).p_value("theirs") is None

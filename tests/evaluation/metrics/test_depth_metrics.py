import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import ks_2samp

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.depth import kolmogorov_smirnov
from scldm.evaluation.spaces import FeatureSpace


@pytest.mark.parametrize("n_values", [5, 1000])
def test_kolmogorov_smirnov_matches_scipy_with_and_without_ties(draw, n_values):
    values = np.random.default_rng(0).integers(0, n_values, 170) * 1.1 // 1
    system, reference = draw(170, 60, 80)
    found = kolmogorov_smirnov(values, system, reference)
    expected = [ks_2samp(values[s], values[r]).statistic for s, r in zip(system, reference, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_kolmogorov_smirnov_of_equal_and_disjoint_sets(one_row):
    values, sides = np.arange(10.0), one_row(10, 10)
    assert kolmogorov_smirnov(np.tile(values, 2), *sides)[0] == pytest.approx(0.0)
    assert kolmogorov_smirnov(np.append(values, values + 100), *sides)[0] == pytest.approx(1.0)
    assert kolmogorov_smirnov(np.append(values + 100, values), *sides)[0] == pytest.approx(1.0)


def side(depths: np.ndarray, labels: np.ndarray) -> Side:
    counts = csr_matrix(depths[:, None].astype(np.float32))
    cells = Cells(counts, pd.Index(["gene"]), pd.DataFrame({"cell_type": labels}))
    return Side(cells, {"pca": np.zeros((len(depths), 1))})


def compare(pool: Side, system: np.ndarray, reference: np.ndarray, fitting: Side) -> Comparison:
    fitted = Fitted({"pca": FeatureSpace(np.zeros(1), np.ones((1, 1)))}, {}, fitting, None)
    return Comparison(fitted, pool, system, reference, fitting)


def test_depths_within_labels_weigh_by_the_reference_and_rare_labels_do_not_count(draw):
    rng = np.random.default_rng(0)
    depths = rng.integers(100, 900, 300).astype(float)
    labels = rng.choice(np.array(["B", "T", "NK", None], dtype=object), 300, p=[0.5, 0.2, 0.2, 0.1])
    system, reference = draw(300, 140, 120)
    kinds = np.array(["B", "T", "NK", None], dtype=object)
    # of 120 cells twenty are expected where forty of 240 fitting cells have the label
    fitting = side(depths[:240], np.repeat(kinds, [120, 40, 39, 41]))
    expected = []
    for s, r in zip(system, reference, strict=True):
        found = {label: ks_2samp(*(depths[one & (labels == label)] for one in (s, r))).statistic for label in "BT"}
        sizes = {label: (r & (labels == label)).sum() for label in "BT"}
        expected.append(sum(found[label] * sizes[label] for label in "BT") / sum(sizes.values()))
    pool = side(depths, labels)
    comparison = compare(pool, system, reference, fitting)
    np.testing.assert_allclose(METRICS["depth_ks_within"].compute(comparison, "cell_type"), expected)
    rare = compare(pool, system, reference, side(depths[:240], np.repeat(kinds, [39, 39, 39, 123])))
    assert METRICS["depth_ks_within"].compute(rare, "cell_type") is None


@pytest.mark.parametrize(("n_cells", "expected"), [(5, 0.0), (4, 1.0), (0, 1.0)])
def test_depths_of_a_label_that_is_missed_count_as_wholly_different(one_row, n_cells, expected):
    # all cells are of one depth
    held_out = side(np.full(50, 300.0), np.repeat(np.array(["B"], dtype=object), 50))
    labels = np.repeat(np.array(["B", "T", "B"], dtype=object), [n_cells, 50 - n_cells, 50])
    comparison = compare(side(np.full(100, 300.0), labels), *one_row(50, 50), held_out)
    assert METRICS["depth_ks_within"].compute(comparison, "cell_type")[0] == expected

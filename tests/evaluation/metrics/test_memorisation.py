import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.memorisation import attack_scores, attack_space, cell_hashes, copied, near_shares
from scldm.evaluation.metrics.two_sample import auroc
from scldm.evaluation.spaces import FeatureSpace


@pytest.fixture(scope="module")
def cells(make_cells) -> Cells:
    return read_cells(make_cells(600, seed=5), "the cells", None, [], optional=False)


def test_equal_cells_have_equal_hashes_however_they_are_stored(cells):
    counts = cells.counts[:50]
    shuffled = counts.copy()
    for start, stop in zip(shuffled.indptr[:-1], shuffled.indptr[1:], strict=True):
        shuffled.indices[start:stop] = shuffled.indices[start:stop][::-1].copy()
        shuffled.data[start:stop] = shuffled.data[start:stop][::-1].copy()
    with_zeros = csr_matrix(counts.toarray())
    with_zeros = csr_matrix(
        (
            np.append(with_zeros.data, 0.0),
            np.append(with_zeros.indices, 0),
            np.append(with_zeros.indptr[:-1], with_zeros.nnz + 1),
        ),
        shape=counts.shape,
    )
    np.testing.assert_array_equal(cell_hashes(shuffled), cell_hashes(counts))
    np.testing.assert_array_equal(cell_hashes(with_zeros), cell_hashes(counts))
    assert len(np.unique(cell_hashes(cells.counts))) == len(cells)


def test_a_copy_differs_in_no_gene(cells):
    release = cells.counts[:20].toarray()
    release[0, 3] += 1
    release[1, [4, 5]] = release[1, [5, 4]] + [1, 0]
    found = copied(csr_matrix(release), cells.counts)
    np.testing.assert_array_equal(found, [False, False] + [True] * 18)
    assert not copied(cells.counts[:300], cells.counts[300:]).any()


@pytest.mark.parametrize("n_cells", [99, 400])
def test_one_per_cent_of_real_cells_are_near(draw, n_cells):
    distances = np.random.default_rng(0).normal(size=2 * n_cells)
    shares = near_shares(distances, *draw(2 * n_cells, n_cells, n_cells, n_rows=3000))
    assert shares.mean() == pytest.approx(0.01, abs=0.001)


@pytest.mark.parametrize("n_cells", [30, 99, 250])
def test_near_shares_in_every_row_are_those_of_the_chosen_cells(draw, n_cells):
    # ties: a cell as near as the threshold is near
    distances = np.random.default_rng(0).integers(0, 60, size=600).astype(float)
    system, reference = draw(600, 300, n_cells)
    thresholds = [np.quantile(distances[row], 0.01, method="weibull") for row in reference]
    expected = [(distances[row] <= threshold).mean() for row, threshold in zip(system, thresholds, strict=True)]
    np.testing.assert_allclose(near_shares(distances, system, reference), expected)


def test_copies_are_near_and_strangers_are_not(draw):
    rng = np.random.default_rng(0)
    half = np.where(np.arange(100) < 30, 0.0, 50.0)
    distances = np.append(half, rng.gamma(5.0, size=100))
    system = np.arange(200)[None] < 100
    assert near_shares(distances, system, ~system)[0] == pytest.approx(0.3)
    # of many draws of 50 of these cells
    drawn, reference = draw(100, 50, 0, n_rows=50)[0], draw(100, 80, 0, n_rows=50, seed=2)[0]
    nobody = np.zeros((50, 100), dtype=bool)
    shares = near_shares(distances, np.hstack([drawn, nobody]), np.hstack([nobody, reference]))
    np.testing.assert_allclose(shares, drawn[:, :30].sum(axis=1) / 50)


def test_an_attacker_learns_from_copies_and_nothing_from_new_cells(cells):
    members, others, fresh = (cells.take(np.arange(start, start + 200)) for start in (0, 200, 400))
    space = attack_space(members, others)

    def attack(release: Cells) -> float:
        of_members, of_others = attack_scores(space, release, members, others)
        return auroc(of_others, of_members)

    assert attack(fresh) == pytest.approx(0.5, abs=0.06)
    assert attack(members) == 1.0
    assert attack(others) == 0.0
    # a release of half of the members gives these away: AUROC .5 + .5 * half
    assert attack(members.take(np.arange(100))) == pytest.approx(0.75, abs=0.05)


def test_members_and_others_take_the_same_part_in_the_space_of_the_attack(cells):
    members, others, fresh = (cells.take(np.arange(start, start + 200)) for start in (0, 200, 400))
    one, other = attack_space(members, others), attack_space(others, members)
    of_members, of_others = attack_scores(one, fresh, members, others)
    again = attack_scores(other, fresh, others, members)
    np.testing.assert_allclose(again[1], of_members, rtol=1e-6)
    np.testing.assert_allclose(again[0], of_others, rtol=1e-6)
    with pytest.raises(ValueError, match="200 members and 199 others; as many are needed of both"):
        attack_space(members, others.take(np.arange(199)))


def attacked(
    cells: Cells, release: Cells, reference: np.ndarray, n_training: int = 200, seed: int = 0
) -> tuple[Comparison, np.ndarray, np.ndarray]:
    """Attack a release; the first cells are trained on, and of 200 others some are the reference in every row."""
    space = FeatureSpace(np.zeros(1), np.ones((1, 1)))  # not that of the attack

    def side(some: Cells) -> Side:
        return Side(some, {"pca": np.zeros((len(some), 1))})

    training, held_out = side(cells.take(np.arange(n_training))), side(cells.take(np.arange(200, 400)))
    fitted = Fitted({"pca": space}, {}, training, training)
    return Comparison(fitted, held_out, np.zeros_like(reference), reference, held_out, side(release), seed)


def test_every_draw_attacks_other_training_cells_the_same_ones_for_every_system(cells, draw):
    reference = np.repeat(draw(200, 100, 0, n_rows=1)[0], 2, axis=0)
    compute = METRICS["membership_auroc"].compute
    fresh, copies = cells.take(np.arange(400, 600)), cells.take(np.arange(100))
    found = compute(attacked(cells, fresh, reference))
    assert found[0] != found[1]
    np.testing.assert_array_equal(compute(attacked(cells, fresh, reference)), found)
    assert (compute(attacked(cells, fresh, reference, seed=1)) != found).any()
    # half of the training cells are released, and about half of those that are drawn
    np.testing.assert_allclose(compute(attacked(cells, copies, reference)), 0.75, atol=0.12)
    # with fewer training cells than others, as many of both; all are released
    np.testing.assert_array_equal(compute(attacked(cells, copies, reference, n_training=60)), 1.0)


def test_cells_of_the_draw_are_released_where_no_others_are(cells, draw):
    system, reference = draw(200, 50, 100)
    whole = attacked(cells, cells, reference)
    drawn = Comparison(whole.fitted, whole.pool, system, reference, whole.held_out)
    found = METRICS["membership_auroc"].compute(drawn)
    expected = []
    for row in range(4):
        release = whole.pool.cells.take(np.flatnonzero(system[row]))
        expected.append(METRICS["membership_auroc"].compute(attacked(cells, release, reference))[row])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("start", [0, 400])
def test_exchanging_members_and_others_makes_differences_near_zero(cells, draw, start):
    metric = METRICS["membership_auroc"]
    release = cells.take(np.arange(start, start + 200))  # copies of all training cells, or none
    comparison = attacked(cells, release, draw(200, 150, 0, n_rows=2)[0])
    differences = metric.null(comparison, 300)
    assert differences.shape == (300,)
    assert abs(differences.mean()) < 0.01
    # the standard error of an area of about 150 against 150 in two draws that share most cells
    assert 0.015 < differences.std() < 0.06
    observed = metric.compute(comparison).mean() - metric.expected
    assert observed == (0.5 if start == 0 else pytest.approx(0.0, abs=3 * differences.std()))
    assert (differences.max() < observed) == (start == 0)
    np.testing.assert_array_equal(metric.null(comparison, 39), differences[:39])


def test_a_cell_is_on_the_same_side_in_every_draw_of_a_permutation(cells):
    # three draws of all cells are one: with other sides in each, differences would shrink
    fresh, everyone = cells.take(np.arange(400, 600)), np.ones((1, 200), dtype=bool)
    null = METRICS["membership_auroc"].null
    once, thrice = (null(attacked(cells, fresh, np.repeat(everyone, n, axis=0)), 20) for n in (1, 3))
    np.testing.assert_allclose(thrice, once, rtol=1e-9)
    assert once.std() > 0.01


def test_nothing_is_to_be_told_of_a_single_cell(cells):
    one = attacked(cells, cells.take(np.arange(400, 600)), np.arange(200)[None] < 2, n_training=2)
    differences = METRICS["membership_auroc"].null(one, 50)
    # now and then all four are on one side, which says nothing
    assert np.isfinite(differences).all()
    assert (differences == 0.0).any()


def test_no_null_of_the_attack_without_training_cells(cells):
    known = attacked(cells, cells, np.ones((1, 200), dtype=bool))
    blind = Fitted(known.fitted.spaces, {}, known.fitted.fitting, None)
    comparison = Comparison(blind, known.pool, known.system, known.reference, known.held_out)
    assert METRICS["membership_auroc"].null(comparison, 39) is None

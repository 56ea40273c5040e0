import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.metrics.memorisation import attack_scores, cell_hashes, copied, near_shares
from scldm.evaluation.metrics.two_sample import auroc


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
def test_one_per_cent_of_real_cells_are_near(n_cells):
    rng = np.random.default_rng(0)
    ones = np.ones((1, n_cells))
    shares = [near_shares(*rng.normal(size=(2, n_cells)), ones, ones)[0] for _ in range(3000)]
    assert np.mean(shares) == pytest.approx(0.01, abs=0.001)


def test_copies_are_near_and_strangers_are_not():
    rng = np.random.default_rng(0)
    reference, weights = rng.gamma(5.0, size=100), rng.poisson(1.0, size=(50, 100)).astype(np.float32)
    half = np.where(np.arange(100) < 30, 0.0, 50.0)
    value, replicates = near_shares(half, reference, weights, weights)
    assert value == pytest.approx(0.3)
    assert replicates.mean() == pytest.approx(0.3, abs=0.02)
    assert replicates.std() == pytest.approx(np.sqrt(0.3 * 0.7 / 100), rel=0.3)


def test_an_attacker_learns_from_copies_and_nothing_from_new_cells(cells):
    members, others, fresh = (cells.take(np.arange(start, start + 200)) for start in (0, 200, 400))
    ones = np.ones((1, 200))

    def attack(release: Cells) -> float:
        of_members, of_others = attack_scores(release, members, others)
        return auroc(of_others, of_members, ones, ones).value

    assert attack(fresh) == pytest.approx(0.5, abs=0.06)
    assert attack(members) == 1.0
    # a release of half of the members gives these away: AUROC .5 + .5 * half
    assert attack(members.take(np.arange(100))) == pytest.approx(0.75, abs=0.05)

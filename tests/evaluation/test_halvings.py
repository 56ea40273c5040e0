"""Which cells are compared: halves, pairs and groups, as they are and under the hypothesis that the system is real."""

import numpy as np
import pytest

from scldm.evaluation.halvings import Grouped, Independent, Paired

CODES = np.tile([0, 0, 1, 1, 1, 2], 10)


def test_halves_are_disjoint_equal_and_keep_the_shares_of_labels():
    scheme = Independent(60, 60, 30, np.concatenate([CODES, CODES]), seed=0)
    halved = scheme.halvings(4)
    codes = np.concatenate([CODES, CODES])
    for system, ceiling, reference in zip(halved.system, halved.ceiling, halved.reference, strict=True):
        assert system.sum() == ceiling.sum() == reference.sum() == 30
        assert not system[60:].any()
        assert not ceiling[:60].any()
        assert not reference[:60].any()
        assert (ceiling[60:] ^ reference[60:]).all()
        for mask in (system, ceiling, reference):
            np.testing.assert_allclose(np.bincount(codes[mask]), [10, 15, 5], atol=1)
    assert (halved.reference[0] != halved.reference[1]).any()


def test_halves_of_the_held_out_cells_are_the_same_beside_every_system():
    one = Independent(60, 60, 30, np.concatenate([CODES, CODES]), seed=0).halvings(3)
    other = Independent(10, 60, 10, np.concatenate([CODES[:10], CODES]), seed=0).halvings(3)
    paired = Paired(60, 60, 30, np.concatenate([CODES, CODES]), seed=0).halvings(3)
    np.testing.assert_array_equal(one.reference[:, 60:], paired.reference[:, 60:])
    np.testing.assert_array_equal(one.ceiling[:, 60:], paired.ceiling[:, 60:])
    assert (other.reference[:, 10:] <= one.reference[:, 60:]).all()


@pytest.mark.parametrize("same_shares", [True, False])
def test_cells_are_exchanged_within_labels_only_where_these_are_as_frequent(same_shares):
    own = CODES if same_shares else np.zeros(60, dtype=np.int64)
    codes = np.concatenate([own, CODES])
    scheme = Independent(60, 60, 30, codes, seed=0)
    numbers, from_system = [], []
    for halved in scheme.permuted(2, range(30)):
        held_out = halved.ceiling | halved.reference
        assert (held_out.sum(axis=1) == 60).all()
        assert not (halved.system & held_out).any()
        numbers += [np.bincount(codes[mask], minlength=3).tolist() for mask in held_out]
        from_system.append(held_out[:, :60].mean())
    assert np.mean(from_system) == pytest.approx(0.5, abs=0.03)
    assert (np.ptp(numbers, axis=0) == 0).all() == same_shares


def test_every_permutation_is_another_and_a_number_always_gives_the_same():
    scheme = Independent(20, 20, 10, np.zeros(40, dtype=np.int64), seed=3)
    one, again = (list(scheme.permuted(2, range(5))) for _ in range(2))
    (third,) = scheme.permuted(2, range(2, 3))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.system, b.system)
    np.testing.assert_array_equal(one[2].reference, third.reference)
    assert len({a.system.tobytes() for a in one}) == 5


def test_pairs_are_swapped_and_a_cell_is_never_beside_its_counterpart():
    scheme = Paired(40, 40, 20, np.zeros(80, dtype=np.int64), seed=0)
    for halved in (scheme.halvings(5), *scheme.permuted(3, range(6))):
        for system, ceiling, reference in zip(halved.system, halved.ceiling, halved.reference, strict=True):
            pairs = [set(np.flatnonzero(mask) % 40) for mask in (system, ceiling, reference)]
            assert pairs[0] == pairs[1]
            assert not pairs[0] & pairs[2]
    swapped = [halved.ceiling[:, :40].sum() for halved in scheme.permuted(1, range(40))]
    assert np.mean(swapped) == pytest.approx(10, abs=1.5)
    assert not scheme.halvings(5).ceiling[:, :40].any()


def test_groups_stay_together_and_stand_for_the_system():
    groups = np.repeat(np.arange(10), 6)
    scheme = Grouped(60, 60, 27, np.zeros(120, dtype=np.int64), 0, groups)
    for halved in (scheme.halvings(5), *scheme.permuted(5, range(20))):
        for ceiling, reference in zip(halved.ceiling[:, 60:], halved.reference[:, 60:], strict=True):
            assert ceiling.sum() == reference.sum() == 27
            assert not set(groups[ceiling]) & set(groups[reference])
    for halved in scheme.permuted(5, range(3)):
        np.testing.assert_array_equal(halved.system, halved.ceiling)

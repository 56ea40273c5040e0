from __future__ import annotations

import itertools
import math

import pytest

from scldm.config import TrainingConfig
from scldm.training.schedule import is_due, learning_rate_factor, patience_is_out


def test_learning_rate_warms_up_linearly_and_decays_by_a_cosine():
    config = TrainingConfig(cells=1000, batch_size=100, warmup_cells=200)
    factors = [learning_rate_factor(config, cells) for cells in range(0, 1001, 100)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    expected = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(9)]
    assert factors[2:] == pytest.approx(expected)
    assert factors[-1] == pytest.approx(0)
    # No step is more than a few percent of the peak away from its neighbour: no sudden drop anywhere.
    assert max(a - b for a, b in itertools.pairwise(factors)) < 0.2


def test_constant_learning_rate_stays_at_its_peak():
    config = TrainingConfig(cells=1000, batch_size=100, warmup_cells=0, decay="constant")
    assert [learning_rate_factor(config, cells) for cells in (0, 500, 1000, 5000)] == [1.0] * 4


@pytest.mark.parametrize(
    ("every", "due"),
    [(8, [8, 16, 24, 32, 40, 48]), (16, [16, 32, 48]), (20, [24, 40]), (3, [8, 16, 24, 32, 40, 48]), (49, [])],
)
def test_what_is_due_every_so_many_cells_comes_with_the_step_that_reaches_them(every, due):
    assert [cells for cells in range(8, 49, 8) if is_due(every, cells, 8)] == due


@pytest.mark.parametrize(
    ("patience", "best", "waits_until"),
    [(1.0, 100, 200), (0.5, 100, 150), (3.0, 10, 160), (0.0, 100, None), (0.5, 0, None)],
)
def test_patience_is_a_multiple_of_the_best_cells_or_of_the_warm_up(patience, best, waits_until):
    config = TrainingConfig(patience=patience, warmup_cells=50)
    out = [cells for cells in range(best, 10_000) if patience_is_out(config, cells, best)]
    assert out == ([] if waits_until is None else list(range(waits_until + 1, 10_000)))

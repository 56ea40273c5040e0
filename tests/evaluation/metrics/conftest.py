"""Two clouds of points, and bootstrap weights for any numbers of cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from scldm.evaluation.bootstrap import draw_weights


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(70, 4)), rng.normal(0.4, 1.2, size=(50, 4))


@pytest.fixture
def weights_for() -> Callable[..., list[np.ndarray]]:
    def draw(*sizes: int, n_resamples: int = 25) -> list[np.ndarray]:
        rng = np.random.default_rng(11)
        return [draw_weights(size, rng, n_resamples) for size in sizes]

    return draw

"""Two clouds of points, draws of cells for any numbers of them, and comparisons of points that are no cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Comparison, Fitted, Side
from scldm.evaluation.spaces import FeatureSpace

Masks = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(70, 4)), rng.normal(0.4, 1.2, size=(50, 4))


@pytest.fixture
def draw() -> Callable[..., Masks]:
    """Draw a system and a reference, a row for every draw; some cells may be on neither side."""

    def draw(n_cells: int, n_system: int, n_reference: int, n_rows: int = 4, seed: int = 11) -> Masks:
        order = np.argsort(np.random.default_rng(seed).random((n_rows, n_cells)), axis=1)
        system, reference = np.zeros((2, n_rows, n_cells), dtype=bool)
        np.put_along_axis(system, order[:, :n_system], True, axis=1)
        np.put_along_axis(reference, order[:, n_system : n_system + n_reference], True, axis=1)
        return system, reference

    return draw


@pytest.fixture
def one_row() -> Callable[[int, int], Masks]:
    """Take all cells in a single row: the first ones are the system, the others the reference."""

    def one_row(n_system: int, n_reference: int) -> Masks:
        system = (np.arange(n_system + n_reference) < n_system)[None]
        return system, ~system

    return one_row


@pytest.fixture
def compare_points() -> Callable[..., Comparison]:
    """Compare points in the primary space; the fitting cells, which give the unit of kernels, are points too."""

    def side(points: np.ndarray) -> Side:
        counts = csr_matrix(np.ones((len(points), 1), dtype=np.float32))
        return Side(Cells(counts, pd.Index(["gene"]), pd.DataFrame(index=range(len(points)))), {"pca": points})

    def compare(
        points: np.ndarray, system: np.ndarray, reference: np.ndarray, fitting: np.ndarray | None = None, seed: int = 0
    ) -> Comparison:
        spaces = {"pca": FeatureSpace(np.zeros(1), np.ones((1, 1)))}
        fitted = Fitted(spaces, {}, side(points if fitting is None else fitting), None)
        return Comparison(fitted, side(points), system, reference, side(points), seed=seed)

    return compare

"""Optimal transport between two clouds of cells: Wasserstein distance, exact and along random lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from scldm.evaluation.compare import Comparison, Rows
from scldm.evaluation.metrics.registry import METRICS, Limit, Metric, metric, times
from scldm.evaluation.metrics.rows import X, Y

__all__ = ["EXACT_TRANSPORT_CELLS", "WASSERSTEIN2_PUBLISHED", "SortedLines", "sliced_wasserstein2", "wasserstein2"]

#: Exact optimal transport takes .06 s at so many cells on either side, and grows faster than their square; several
#: hundred problems are solved per system. Beyond, a subsample of this size stands for all.
EXACT_TRANSPORT_CELLS = 1000
N_PROJECTIONS = 128


@metric(
    "wasserstein2",
    group="distances",
    direction="lower",
    display_name="Wasserstein-2",
    description="2-Wasserstein distance in the feature space: square root of the exact optimal transport cost (squared "
    f"Euclidean); beyond {EXACT_TRANSPORT_CELLS:,} cells on a side, of as many of them.",
    values="0 or more, in units of the space",
    degenerate="0 only for equal sets of cells; real cells have a positive value that falls with their number.",
    scope="space",
    # of real cells it is finite-sample bias: the limits are factors of that
    limits=Limit(
        "distances",
        times(1.05, 1.25),
        "The Wasserstein distance to real cells is {value:.3g}, {loss:.2f} times that between real cells "
        "({ceiling:.3g}).",
    ),
    max_halvings=5,
    max_permutations=39,
)
def _wasserstein2(c: Comparison, space: str) -> Rows:
    points, rng = c.pool.features[space], c.rng("transport")
    return np.array(
        [wasserstein2(*(points[_at_most(side, EXACT_TRANSPORT_CELLS, rng)] for side in sides)) for sides in c.draws]
    )


def _wasserstein2_published(c: Comparison, space: str) -> Rows:
    points = c.pool.features[space]
    return np.array([wasserstein2(points[system], points[reference]) for system, reference in c.draws])


#: Of all cells, as in published tables; only in the profile ``published``, so it is not registered.
WASSERSTEIN2_PUBLISHED = Metric(METRICS["wasserstein2"].info, _wasserstein2_published, scope="space")


@metric(
    "sliced_wasserstein2",
    group="distances",
    direction="lower",
    display_name="Sliced Wasserstein-2",
    description=f"Sliced 2-Wasserstein distance in the feature space: root mean square over {N_PROJECTIONS} random "
    "directions of the distance between projections, times the root of the number of features; of all compared cells.",
    values="0 or more, in units of the space",
    degenerate="0 only for equal sets of cells; real cells have a small positive value.",
    scope="space",
    max_permutations=39,
)
def _sliced_wasserstein2(c: Comparison, space: str) -> Rows:
    seed = int(c.rng("projections").integers(2**31))
    lines = c.pool.once(f"lines, {space}", lambda: SortedLines.through(c.pool.features[space], seed))
    distances = [lines.distance(s, r) for s, r in zip(c.system, c.reference, strict=True)]
    return np.array(distances)


def _at_most(cells: Int[np.ndarray, " cells"], n_cells: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    return cells if len(cells) <= n_cells else np.sort(rng.choice(cells, n_cells, replace=False))


def wasserstein2(x: X, y: Y) -> float:
    """Compute the 2-Wasserstein distance: the square root of the exact optimal transport cost (squared Euclidean).

    Between equally many points of equal weight an optimal transport is an assignment of one to one. The value for two
    samples of one distribution is not zero and falls with their size: compare at equal n only. Needs one n x n float64
    matrix (200 MB at 5,000 cells). Raises ``ValueError`` if the two sides have different numbers of points.
    """
    from scipy.optimize import linear_sum_assignment

    if len(x) != len(y):
        raise ValueError(f"transport needs equally many cells, not {len(x)} and {len(y)}")
    cost = cdist(x, y, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


def sliced_wasserstein2(x: X, y: Y, n_projections: int = N_PROJECTIONS, seed: int = 0) -> float:
    """Compute the sliced 2-Wasserstein distance (Bonneel et al., 2015).

    It is the root of the mean over random directions of W2^2 between the projections, where sorting is the solution,
    times the number of features, so that a shift counts as in W2. Raises ``ValueError`` if the two sides have different
    numbers of cells.
    """
    if len(x) != len(y):
        raise ValueError(f"sliced transport needs equally many cells, not {len(x)} and {len(y)}")
    lines = SortedLines.through(np.concatenate([x, y]), seed, n_projections)
    first = np.arange(len(x) + len(y)) < len(x)
    return lines.distance(first, ~first)


@dataclass(frozen=True, eq=False)
class SortedLines:
    """Points along random directions: sorted once, whatever parts of them are compared."""

    order: Int[np.ndarray, "projections cells"]
    values: Float[np.ndarray, "projections cells"]
    n_features: int

    @classmethod
    def through(cls, points: X, seed: int, n_projections: int = N_PROJECTIONS) -> SortedLines:
        """Project points onto directions that are uniform on the sphere."""
        directions = np.random.default_rng(seed).normal(size=(n_projections, points.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        values = directions @ points.T
        order = np.argsort(values, axis=1).astype(np.int32)
        return cls(order, np.take_along_axis(values, order, axis=1), points.shape[1])

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        """Compute the sliced distance between the points of two masks that choose equally many."""
        n_projections = len(self.values)
        a, b = (self.values[mask[self.order]].reshape(n_projections, -1) for mask in (one, other))
        a -= b
        return float(np.sqrt(np.einsum("pn,pn->", a, a) / a.size * self.n_features))

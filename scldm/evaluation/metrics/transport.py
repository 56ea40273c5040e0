"""Optimal transport between two clouds of cells: Wasserstein distance, exact and along random lines."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from scldm.evaluation.bootstrap import Estimate, WeightsX, WeightsY, X, Y, weighted_mean
from scldm.evaluation.compare import Comparison, Side
from scldm.evaluation.draws import stratified_choice
from scldm.evaluation.metrics.nearest import blocks
from scldm.evaluation.metrics.registry import Limit, metric, times
from scldm.seeds import numpy_rng

__all__ = ["EXACT_TRANSPORT_CELLS", "from_potentials", "sliced_potentials", "transport_potentials", "wasserstein2"]

#: Exact optimal transport takes seconds and a matrix of 200 MB at so many cells on either side, and grows faster than
#: their square: beyond, a subsample of this size stands for all.
EXACT_TRANSPORT_CELLS = 5000
N_PROJECTIONS = 256
_MAX_TRANSPORT_ITERATIONS = 50_000_000


@metric(
    "wasserstein2",
    group="distances",
    direction="lower",
    display_name="Wasserstein-2",
    description="2-Wasserstein distance in the feature space: square root of the exact optimal transport cost (squared "
    f"Euclidean); beyond {EXACT_TRANSPORT_CELLS:,} cells on a side, of as many of them.",
    scope="space",
    # of real cells it is finite-sample bias: the limits are factors of that
    limits=Limit(
        "distances",
        times(1.05, 1.25),
        "The Wasserstein distance to real cells is {value:.3g}, {loss:.2f} times that between real cells "
        "({ceiling:.3g}).",
    ),
)
def _wasserstein2(c: Comparison, space: str) -> Estimate:
    system, reference = _at_most(c.system, EXACT_TRANSPORT_CELLS), _at_most(c.reference, EXACT_TRANSPORT_CELLS)
    potentials = transport_potentials(system.features[space], reference.features[space])
    return from_potentials(*potentials, system.weights, reference.weights)


@metric(
    "sliced_wasserstein2",
    group="distances",
    direction="lower",
    display_name="Sliced Wasserstein-2",
    description=f"Sliced 2-Wasserstein distance in the feature space: root mean square over {N_PROJECTIONS} random "
    "directions of the distance between projections, times the root of the number of features; of all compared cells.",
    scope="space",
)
def _sliced_wasserstein2(c: Comparison, space: str) -> Estimate:
    potentials = sliced_potentials(c.system.features[space], c.reference.features[space])
    return from_potentials(*potentials, c.system.weights, c.reference.weights)


def _at_most(side: Side, n_cells: int) -> Side:
    """Choose cells at random, with every label's share of them."""
    if len(side.cells) <= n_cells:
        return side
    return side.take(stratified_choice(side.cells.labels, n_cells, numpy_rng(0)))


def wasserstein2(x: X, y: Y) -> float:
    """Compute the 2-Wasserstein distance: the square root of the exact optimal transport cost (squared Euclidean).

    Its value for two samples of one distribution is not zero and falls with their size: compare at equal n only.
    Needs one n x m float64 matrix (200 MB at 5,000 cells).
    """
    potentials = transport_potentials(x, y)
    return float(np.sqrt(max(float(potentials[0].mean() + potentials[1].mean()), 0.0)))


def transport_potentials(x: X, y: Y) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Solve exact optimal transport for its dual: one price per point, whose two means add up to the cost W2^2."""
    import ot

    cost = cdist(x, y, "sqeuclidean")
    _, log = ot.emd(ot.unif(len(x)), ot.unif(len(y)), cost, numItermax=_MAX_TRANSPORT_ITERATIONS, log=True)
    return np.asarray(log["u"], np.float64), np.asarray(log["v"], np.float64)


def sliced_potentials(
    x: X, y: Y, n_projections: int = N_PROJECTIONS, seed: int = 0
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Solve optimal transport along random lines, where sorting is the solution, and average the dual prices.

    The two means add up to the squared sliced 2-Wasserstein distance (Bonneel et al., 2015): the mean over directions
    of W2^2 between the projections, here times the number of features, so that a shift counts as in W2. Raises
    ``ValueError`` if the two sides have different numbers of cells.
    """
    import ot

    if len(x) != len(y):
        raise ValueError(f"sliced transport needs equally many cells, not {len(x)} and {len(y)}")
    directions = ot.sliced.get_random_projections(x.shape[1], n_projections, seed=seed)
    price_x, price_y = np.zeros(len(x)), np.zeros(len(y))
    for some in blocks(n_projections, 32):
        a, b = x @ directions[:, some], y @ directions[:, some]
        order_a, order_b = np.argsort(a, axis=0), np.argsort(b, axis=0)
        a, b = np.take_along_axis(a, order_a, 0), np.take_along_axis(b, order_b, 0)
        # Complementary slackness bounds the step of the price from one sorted point to the next; this is the middle.
        step = np.diff(a, axis=0) * (a[1:] + a[:-1] - b[1:] - b[:-1])
        price_a = np.concatenate([np.zeros((1, a.shape[1])), np.cumsum(step, axis=0)])
        price_b = (a - b) ** 2 - price_a
        for price, order, total in ((price_a, order_a, price_x), (price_b, order_b, price_y)):
            unsorted = np.empty_like(price)
            np.put_along_axis(unsorted, order, price, 0)
            total += unsorted.sum(axis=1)
    factor = x.shape[1] / n_projections
    return price_x * factor, price_y * factor


def from_potentials(
    potential_x: Float[np.ndarray, " n"],
    potential_y: Float[np.ndarray, " m"],
    weights_x: WeightsX,
    weights_y: WeightsY,
) -> Estimate:
    """Estimate a transport distance (the root of the cost) from dual prices.

    To first order the cost changes with the weights of the points as the weighted means of their prices do: the central
    limit theorem of del Barrio and Loubes (2019). That takes no further transport problem per resample.
    """
    cost_x, cost_y = weighted_mean(potential_x, weights_x), weighted_mean(potential_y, weights_y)
    assert cost_x.replicates is not None
    assert cost_y.replicates is not None
    replicates = np.sqrt(np.maximum(cost_x.replicates + cost_y.replicates, 0.0))
    return Estimate(float(np.sqrt(max(cost_x.value + cost_y.value, 0.0))), replicates)

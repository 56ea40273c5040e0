"""Nearest neighbours between two sets of cells, in blocks: no full matrix of distances is ever made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.compare import Masks, Rows
from scldm.evaluation.metrics.rows import X, Y

__all__ = [
    "N_NEIGHBOURS",
    "NearestOfPool",
    "Neighbourhoods",
    "Neighbours",
    "blocks",
    "nearest",
    "squared_distances",
]

N_NEIGHBOURS = 5
# A side is a quarter of a pool or more: five of so many are hardly ever missed.
N_KNOWN = 64

# A block of distances is at most 1,024 x 8,192 float64: 64 MB.
_BLOCK_ROWS = 1024
_BLOCK_COLUMNS = 8192
# Distances by a matrix product are off in the last digits, which can reorder near ties: so many more are looked at.
_SPARE_CANDIDATES = 5


def blocks(n_rows: int, size: int) -> Iterator[slice]:
    """Cut rows into blocks of at most the given size."""
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def squared_distances(x: X, y: Y) -> Float[np.ndarray, "n m"]:
    """Compute squared Euclidean distances, n x m, as ``|x|^2 + |y|^2 - 2 x.y``: fast, exact but for rounding."""
    squared = x @ y.T
    squared *= -2.0
    squared += np.einsum("ij,ij->i", x, x)[:, None]
    squared += np.einsum("ij,ij->i", y, y)
    return np.maximum(squared, 0.0, out=squared)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest neighbours of some points, the nearest first: Euclidean distances (0 for a copy), and which."""

    distances: Float[np.ndarray, "points k"]
    indices: Int[np.ndarray, "points k"]


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Who is near whom within and between two sides of as many points, in every draw of a pool.

    Within a side a point is not its own neighbour. The *ball* of a point reaches to its fifth nearest neighbour on its
    own side, its surface included; the balls of all points are the side's manifold (Kynkäänniemi et al., 2019; Naeem et
    al., 2020).

    Attributes
    ----------
    accuracy
        Leave-one-out accuracy of a 1-nearest-neighbour classifier of the two sides (Lopez-Paz and Oquab, 2017): one
        half for samples of equal size from one distribution, 1 when they are separated, and below one half when each
        point has a near copy on the other side. Points at exactly the same least distance share the vote.
    precision, recall
        Share of the system's points that lie in a ball of the reference, and the other way round.
    density
        Balls of the reference that a point of the system lies in, per neighbour of a ball: 1 in expectation for equal
        distributions.
    coverage
        Share of the balls of the reference that hold a point of the system.
    """

    accuracy: Rows
    precision: Rows
    recall: Rows
    density: Rows
    coverage: Rows

    @classmethod
    def find(
        cls, known: NearestOfPool, system: Masks, reference: Masks, n_neighbours: int = N_NEIGHBOURS
    ) -> Neighbourhoods:
        """Look at every draw, given the nearest neighbours of every point in the pool."""
        found = [known.look(s, r, n_neighbours) for s, r in zip(system, reference, strict=True)]
        return cls(*np.array(found).reshape(len(system), 5).T)


@dataclass(frozen=True, eq=False)
class NearestOfPool:
    """The nearest neighbours of every point of a pool, of whatever side: those of any draw are among them.

    Where a draw has none or too few of them among those that are known, all of its points are looked at.
    """

    points: X
    distances: Float[np.ndarray, "points k"]
    indices: Int[np.ndarray, "points k"]

    @classmethod
    def find(cls, points: X, n_known: int = N_KNOWN) -> NearestOfPool:
        """Search; see `nearest`."""
        known = nearest(points, points, n_known, exclude_self=True)
        return cls(np.asarray(points, np.float64), known.distances, known.indices)

    def look(
        self, system: np.ndarray, reference: np.ndarray, n_neighbours: int = N_NEIGHBOURS
    ) -> tuple[float, float, float, float, float]:
        """Compute the five numbers of `Neighbourhoods` for one draw, given by two masks."""
        n_system, n_reference = int(system.sum()), int(reference.sum())
        votes_s, _, in_system_balls, _ = self._side(system, reference, min(n_neighbours, max(n_system - 1, 1)))
        k = min(n_neighbours, max(n_reference - 1, 1))
        votes_r, covered, in_reference_balls, n_inside = self._side(reference, system, k)
        return (
            float((votes_s.sum() + votes_r.sum()) / (n_system + n_reference)),
            float((in_reference_balls[system] > 0).mean()),
            float((in_system_balls[reference] > 0).mean()),
            n_inside / (k * n_system),
            float(covered.mean()),
        )

    def _side(self, own: np.ndarray, other: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Look from the points of one side.

        Gives for each of them the share of its vote that is for its own side, and whether its ball holds a point of the
        other; for every point of the pool in how many balls it is (of the other side only); and the sum of these.
        """
        of = np.flatnonzero(own)
        # one byte says on which side a neighbour is: 1 its own, 2 the other, 0 not drawn
        code = (own + 2 * other.astype(np.int8)).astype(np.int8)
        side, distances, indices = code[self.indices[of]], self.distances[of], self.indices[of]
        n_own = np.cumsum(side == 1, axis=1, dtype=np.int32)
        known = n_own[:, -1] >= k
        at = (n_own >= k).argmax(axis=1)
        radii = distances[np.arange(len(of)), at]
        if self.indices.shape[1] < len(self.points) - 1:
            # where the last known neighbour is on the surface, others may be that are not known
            known &= radii < distances[:, -1]
        first = (side > 0).argmax(axis=1)
        nearest_ = distances[np.arange(len(of)), first]
        voters = (distances <= nearest_[:, None]) & (side > 0)
        n_voters = voters.sum(axis=1)
        votes = (voters & (side == 1)).sum(axis=1) / np.maximum(n_voters, 1)
        inside = (side == 2) & (distances <= radii[:, None]) & known[:, None]
        covered = inside.any(axis=1)
        in_balls = np.bincount(indices[inside], minlength=len(self.points))
        for i in np.flatnonzero(~known):
            votes[i], covered[i], members = self._alone(int(of[i]), own, other, k)
            in_balls[members] += 1
        return votes, covered, in_balls, int(in_balls.sum())

    def _alone(self, point: int, own: np.ndarray, other: np.ndarray, k: int) -> tuple[float, bool, np.ndarray]:
        """Look from one point at all that are drawn: its vote, whether its ball holds another, and which."""
        drawn = np.flatnonzero(own | other)
        drawn = drawn[drawn != point]
        difference = self.points[drawn] - self.points[point]
        distances = np.sqrt(np.einsum("if,if->i", difference, difference))
        is_own = own[drawn]
        voters = distances <= distances.min()
        of_own = np.sort(distances[is_own])
        radius = of_own[min(k, len(of_own)) - 1] if len(of_own) else np.inf
        members = drawn[~is_own & (distances <= radius)]
        return float(is_own[voters].mean()), bool(len(members)), members


def nearest(points: X, among: Y, k: int = 1, exclude_self: bool = False) -> Neighbours:
    """Find the nearest neighbours of every point, k of them or as many as there are.

    Candidates come from matrix products over blocks; their distances are then computed anew from the differences, so
    that a copy is at distance exactly 0. Of points at the same distance the one with the lower position comes first.
    With `exclude_self` both are the same points, and none is its own neighbour. Raises ``ValueError`` if there is
    nothing to search.
    """
    k = min(k, len(among) - int(exclude_self))
    if k < 1:
        raise ValueError("there is no other point to be a neighbour")
    points, among = np.asarray(points, np.float64), np.asarray(among, np.float64)
    centre = among.mean(axis=0)  # near the origin a matrix product rounds least
    n_candidates = min(k + _SPARE_CANDIDATES, len(among) - int(exclude_self))
    parts = []
    for rows in blocks(len(points), _BLOCK_ROWS):
        own = np.arange(rows.start, rows.stop) if exclude_self else None
        candidates = _candidates(points[rows] - centre, among, centre, n_candidates, own)
        difference = points[rows][:, None, :] - among[candidates]
        distances = np.sqrt(np.einsum("ikf,ikf->ik", difference, difference))
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        parts.append((np.take_along_axis(distances, order, axis=1), np.take_along_axis(candidates, order, axis=1)))
    if not parts:
        return Neighbours(np.zeros((0, k)), np.zeros((0, k), dtype=np.int64))
    return Neighbours(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _candidates(
    points: X, among: Y, centre: Float[np.ndarray, " features"], n: int, own: Int[np.ndarray, " n"] | None
) -> Int[np.ndarray, "n chosen"]:
    """Find the n nearest by matrix products, in increasing order of position; `own` is each point's own position."""
    best_squared = np.zeros((len(points), 0))
    best: np.ndarray = np.zeros((len(points), 0), dtype=np.int64)
    for columns in blocks(len(among), _BLOCK_COLUMNS):
        squared = squared_distances(points, among[columns] - centre)
        if own is not None:
            here = np.flatnonzero((own >= columns.start) & (own < columns.stop))
            squared[here, own[here] - columns.start] = np.inf
        positions = np.broadcast_to(np.arange(columns.start, columns.stop), squared.shape)
        if n < squared.shape[1]:
            chosen = np.argpartition(squared, n - 1, axis=1)[:, :n]
            squared, positions = (np.take_along_axis(a, chosen, axis=1) for a in (squared, positions))
        best_squared, best = np.hstack([best_squared, squared]), np.hstack([best, positions])
        if n < best.shape[1]:
            chosen = np.argpartition(best_squared, n - 1, axis=1)[:, :n]
            best_squared, best = (np.take_along_axis(a, chosen, axis=1) for a in (best_squared, best))
    return np.sort(best, axis=1)

"""Nearest neighbours between two sets of cells, in blocks: no full matrix of distances is ever made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.bootstrap import X, Y

__all__ = ["N_NEIGHBOURS", "Neighbourhoods", "Neighbours", "blocks", "nearest", "squared_distances"]

N_NEIGHBOURS = 5

# A block of distances is at most 1,024 x 8,192 float64: 64 MB.
_BLOCK_ROWS = 1024
_BLOCK_COLUMNS = 8192
# Distances by a matrix product are off in the last digits, which can reorder near ties: so many more are looked at.
_SPARE_CANDIDATES = 5
# Relative to the squared norms, far above the rounding of a matrix product and far below any difference that matters.
_ROUNDING = 1e-11


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
    """Who is near whom within and between the reference (real cells) and one system: five neighbours of every cell.

    Within a side a cell is not its own neighbour. The *ball* of a cell reaches to its fifth nearest neighbour on its
    own side; the balls of all cells are the side's manifold (Kynkäänniemi et al., 2019; Naeem et al., 2020). Of every
    cell it is counted how many balls of the other side it lies in.
    """

    reference_to_reference: Neighbours
    system_to_system: Neighbours
    reference_to_system: Neighbours
    system_to_reference: Neighbours
    system_in_reference_balls: Int[np.ndarray, " system_cells"]
    reference_in_system_balls: Int[np.ndarray, " reference_cells"]

    @classmethod
    def find(
        cls, reference: X, system: Y, n_neighbours: int = N_NEIGHBOURS, *, within_reference: Neighbours | None = None
    ) -> Neighbourhoods:
        """Search both sides; what is known of the reference from another system's search is not sought again."""
        reference, system = np.asarray(reference, np.float64), np.asarray(system, np.float64)
        if within_reference is None:
            within_reference = nearest(reference, reference, n_neighbours, exclude_self=True)
        within_system = nearest(system, system, n_neighbours, exclude_self=True)
        return cls(
            reference_to_reference=within_reference,
            system_to_system=within_system,
            reference_to_system=nearest(reference, system, n_neighbours),
            system_to_reference=nearest(system, reference, n_neighbours),
            system_in_reference_balls=_balls_around(system, reference, within_reference.distances[:, -1]),
            reference_in_system_balls=_balls_around(reference, system, within_system.distances[:, -1]),
        )

    @property
    def precision(self) -> Float[np.ndarray, " system_cells"]:
        """Tell for every cell of the system whether it lies on the real manifold (Kynkäänniemi et al., 2019)."""
        return (self.system_in_reference_balls > 0).astype(np.float64)

    @property
    def recall(self) -> Float[np.ndarray, " reference_cells"]:
        """Tell for every reference cell whether it lies on the system's manifold (Kynkäänniemi et al., 2019)."""
        return (self.reference_in_system_balls > 0).astype(np.float64)

    @property
    def density(self) -> Float[np.ndarray, " system_cells"]:
        """Count for every cell of the system the real balls it lies in, per neighbour of a ball (Naeem et al., 2020).

        Its mean is 1 in expectation for equal distributions, and is less upset by single outliers than precision is.
        """
        return self.system_in_reference_balls / self.reference_to_reference.distances.shape[1]

    @property
    def coverage(self) -> Float[np.ndarray, " reference_cells"]:
        """Tell for every reference cell whether its own ball holds a cell of the system (Naeem et al., 2020)."""
        radii = self.reference_to_reference.distances[:, -1]
        return (self.reference_to_system.distances[:, 0] <= radii).astype(np.float64)


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


def _balls_around(points: X, centres: Y, radii: Float[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
    """Count for every point the balls that it lies in, their surface included."""
    middle = centres.mean(axis=0)
    counts: np.ndarray = np.zeros(len(points), dtype=np.int64)
    for rows in blocks(len(points), _BLOCK_ROWS):
        own = points[rows] - middle
        for columns in blocks(len(centres), _BLOCK_COLUMNS):
            others, radius = centres[columns] - middle, radii[columns]
            excess = squared_distances(own, others)
            excess -= radius**2
            scale = np.einsum("if,if->i", own, own).max() + np.einsum("if,if->i", others, others).max()
            inside = excess < -_ROUNDING * scale
            # on the surface (where copies of neighbours lie) rounding must not decide
            doubtful = np.nonzero(np.abs(excess) <= _ROUNDING * scale)
            for some in blocks(len(doubtful[0]), _BLOCK_ROWS * 64):
                i, j = doubtful[0][some], doubtful[1][some]
                difference = points[rows][i] - centres[columns][j]
                inside[i, j] = np.sqrt(np.einsum("pf,pf->p", difference, difference)) <= radius[j]
            counts[rows] += inside.sum(axis=1)
    return counts

"""Which cells are drawn: equal parts and stratified subsamples, from a generator that is handed in."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

__all__ = ["group_halves", "shuffled_within", "split", "stratified_choice"]

Codes = Int[np.ndarray, " cells"]


def split(codes: Codes, n_parts: int, rng: np.random.Generator) -> list[Int[np.ndarray, " part"]]:
    """Split cells into parts whose sizes differ by one at most, each with its share of every code.

    The code of a cell stands for its labels. Positions are increasing.
    """
    order = _grouped_by_code(codes, rng)
    return [np.sort(order[part::n_parts]) for part in range(n_parts)]


def stratified_choice(codes: Codes, n_cells: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    """Draw cells without replacement so that every code keeps its share, to within one cell; see `split`.

    All cells are taken if there are no more than that.
    """
    if len(codes) <= n_cells:
        return np.arange(len(codes))
    order = _grouped_by_code(codes, rng)
    # every (cells / n_cells)-th cell of the ordered ones, from a random start
    places = np.floor((np.arange(n_cells) + rng.random()) * (len(codes) / n_cells)).astype(np.int64)
    return np.sort(order[np.minimum(places, len(codes) - 1)])


def group_halves(groups: Codes, rng: np.random.Generator) -> tuple[Int[np.ndarray, " one"], Int[np.ndarray, " other"]]:
    """Divide cells in two so that no group is on both sides, of about as many cells.

    The groups come in a random order, and each goes where there are fewer cells.
    """
    sizes = np.bincount(groups)
    in_first: np.ndarray = np.zeros(len(sizes), dtype=bool)
    balance = 0
    for group in rng.permutation(len(sizes)):
        in_first[group] = balance < 0 or (balance == 0 and rng.random() < 0.5)
        balance += int(sizes[group]) if in_first[group] else -int(sizes[group])
    return np.flatnonzero(in_first[groups]), np.flatnonzero(~in_first[groups])


def shuffled_within(codes: Codes, rng: np.random.Generator) -> Int[np.ndarray, " cells"]:
    """Permute the positions of cells, each within its code."""
    order = _grouped_by_code(codes, rng)
    permuted = np.empty_like(order)
    permuted[np.argsort(codes, kind="stable")] = order
    return permuted


def _grouped_by_code(codes: Codes, rng: np.random.Generator) -> Int[np.ndarray, " cells"]:
    """Order cells at random, then by code."""
    order = rng.permutation(len(codes))
    return order[np.argsort(codes[order], kind="stable")]

"""Holding cells out for evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int64

from scldm.errors import UserError
from scldm.seeds import numpy_rng

__all__ = ["split_cells"]

# Whole groups rarely add up to the wanted fraction; the best of this many random draws is taken.
N_DRAWS = 64


def split_cells(
    n_cells: int,
    *,
    fraction: float,
    seed: int,
    stratify_by: np.ndarray | pd.Series | None = None,
    group_by: np.ndarray | pd.Series | None = None,
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " held_out"]]:
    """Split cells at random into those to train on and those to hold out.

    Parameters
    ----------
    n_cells
        Number of cells.
    fraction
        Fraction of cells to hold out, between 0 and 1.
    seed
        The same seed gives the same split.
    stratify_by
        A label per cell; every label is held out by the same fraction as nearly as its cells allow, and always keeps a
        cell to train on.
    group_by
        A label per cell, such as the donor; cells with the same one are never separated. With ``stratify_by``, groups
        are chosen that come near its proportions.

    Returns
    -------
    Sorted positions of the training cells and of the held-out cells, neither empty.

    Raises
    ------
    UserError
        If no such split exists.
    """
    if not 0 < fraction < 1:
        raise UserError(f"the fraction of cells to hold out is {fraction}; it has to lie between 0 and 1")
    if n_cells < 2:
        raise UserError(f"{n_cells} cells cannot be split into training and held-out cells")
    rng = numpy_rng(seed)
    strata = np.zeros(n_cells, dtype=np.int64) if stratify_by is None else _codes(stratify_by, n_cells, "stratify_by")
    if group_by is None:
        held_out = _hold_out_cells(strata, fraction, rng)
    else:
        held_out = _hold_out_groups(_codes(group_by, n_cells, "group_by"), strata, fraction, rng)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _hold_out_cells(strata: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    size = np.bincount(strata)
    quota = np.floor(size * fraction).astype(np.int64)
    # Largest remainders get what rounding down left over; a stratum never gives its last cell.
    wanted = max(1, round(fraction * len(strata)))
    remainder = np.where(size > quota + 1, size * fraction - quota, -1.0) + 1e-9 * rng.random(len(size))
    extra = np.argsort(-remainder)[: max(0, wanted - quota.sum())]
    quota[extra[size[extra] > quota[extra] + 1]] += 1
    if quota.sum() == 0:
        if size.max() < 2:
            raise UserError("every cell has a label of its own in stratify_by, so none can be held out; leave it out")
        quota[size.argmax()] = 1
    shuffled = rng.permutation(len(strata))
    by_stratum = shuffled[np.argsort(strata[shuffled], kind="stable")]
    rank = np.arange(len(strata)) - np.repeat(np.cumsum(size) - size, size)
    held_out = np.zeros(len(strata), dtype=bool)
    held_out[by_stratum] = rank < np.repeat(quota, size)
    return held_out


def _hold_out_groups(groups: np.ndarray, strata: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    n_groups, n_strata = groups.max() + 1, strata.max() + 1
    if n_groups < 2:
        raise UserError("all cells have the same label in group_by, so no group can be held out")
    table = np.bincount(groups * n_strata + strata, minlength=n_groups * n_strata).reshape(n_groups, n_strata)
    wanted = fraction * table.sum(axis=0)
    best, best_error = np.empty(0, dtype=np.int64), np.inf
    for _ in range(N_DRAWS):
        order = rng.permutation(n_groups)
        held = np.cumsum(table[order[:-1]], axis=0)
        # Far-off strata and a far-off total both count; the prefix of the order that fits best is taken.
        error = np.abs(held - wanted).sum(axis=1) + np.abs(held.sum(axis=1) - wanted.sum())
        n_held = int(error.argmin()) + 1
        if error[n_held - 1] < best_error:
            best, best_error = order[:n_held], error[n_held - 1]
    return np.isin(groups, best)


def _codes(labels: np.ndarray | pd.Series, n_cells: int, name: str) -> np.ndarray:
    if len(labels) != n_cells:
        raise ValueError(f"{name} has {len(labels)} labels for {n_cells} cells")
    codes, _ = pd.factorize(pd.Series(np.asarray(labels)), use_na_sentinel=False)
    return codes.astype(np.int64)

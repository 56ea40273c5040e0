"""Which cells are drawn: equal parts and stratified subsamples, from a generator that is handed in."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int

__all__ = ["split", "stratified_choice"]


def split(labels: pd.DataFrame, n_parts: int, rng: np.random.Generator) -> list[Int[np.ndarray, " part"]]:
    """Split cells into parts whose sizes differ by one at most, each with its share of every label.

    The first column of the labels stratifies, if there is any. Positions are increasing.
    """
    order = _grouped_by_label(labels, rng)
    return [np.sort(order[part::n_parts]) for part in range(n_parts)]


def stratified_choice(labels: pd.DataFrame, n_cells: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    """Draw cells without replacement so that every label keeps its share, to within one cell; see `split`.

    All cells are taken if there are no more than that.
    """
    if len(labels) <= n_cells:
        return np.arange(len(labels))
    order = _grouped_by_label(labels, rng)
    # every (cells / n_cells)-th cell of the ordered ones, from a random start
    places = np.floor((np.arange(n_cells) + rng.random()) * (len(labels) / n_cells)).astype(np.int64)
    return np.sort(order[np.minimum(places, len(labels) - 1)])


def _grouped_by_label(labels: pd.DataFrame, rng: np.random.Generator) -> Int[np.ndarray, " cells"]:
    """Order cells at random, then by the label of the first column."""
    order = rng.permutation(len(labels))
    if len(labels.columns):
        stratum = pd.factorize(labels.iloc[:, 0], use_na_sentinel=False)[0]
        order = order[np.argsort(stratum[order], kind="stable")]
    return order

"""Pearson correlations of many rows, and between all pairs of genes, at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from scldm.evaluation.compare import Masks, Rows

__all__ = ["pair_correlations", "pearson", "pearson_rows"]


def pearson(x: Float[np.ndarray, " values"], y: Float[np.ndarray, " values"]) -> float:
    """Compute Pearson's correlation; zero when one side is constant (a generator without any structure)."""
    return float(pearson_rows(x[None], y[None])[0])


def pearson_rows(
    x: Float[np.ndarray, "rows values"],
    y: Float[np.ndarray, "rows values"],
    among: Bool[np.ndarray, "rows values"] | None = None,
) -> Rows:
    """Compute Pearson's correlation of every row of one matrix with the same row of another.

    With `among`, only the values that it marks count. The correlation is zero where a side is constant.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    if among is None:
        x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    else:
        n_values = np.maximum(among.sum(axis=1, keepdims=True), 1)
        x, y = np.where(among, x, 0.0), np.where(among, y, 0.0)
        x = np.where(among, x - x.sum(axis=1, keepdims=True) / n_values, 0.0)
        y = np.where(among, y - y.sum(axis=1, keepdims=True) / n_values, 0.0)
    norm = np.sqrt(np.einsum("rv,rv->r", x, x) * np.einsum("rv,rv->r", y, y))
    return np.einsum("rv,rv->r", x, y) / np.where(norm > 0, norm, np.inf)


def pair_correlations(
    values: Float[np.ndarray, "cells genes"],
    chosen: Masks,
    groups: Int[np.ndarray, " cells"] | None = None,
) -> Float[np.ndarray, "rows pairs"]:
    """Compute the correlations between genes over the chosen cells, for many choices at once.

    With groups, such as cell types, deviations from the mean of a cell's group are correlated; without, it is the
    ordinary Pearson correlation. Pairs of genes are in the order of ``numpy.triu_indices(genes, k=1)``; a gene that
    never varies correlates with none.
    """
    groups = np.zeros(len(values), dtype=np.int64) if groups is None else groups
    weights = chosen.astype(np.float64)
    values = values.astype(np.float64)
    first, second = np.triu_indices(values.shape[1])
    scatter = np.zeros((len(weights), len(first)))
    for group in np.unique(groups):
        members = groups == group
        deviation = values[members] - values[members].mean(axis=0)
        weight = weights[:, members]
        total = np.maximum(weight.sum(axis=1, keepdims=True), 1.0)
        mean = weight @ deviation / total
        scatter += weight @ (deviation[:, first] * deviation[:, second]) - total * mean[:, first] * mean[:, second]
    variance = scatter[:, first == second]
    # what is left of a gene without any variance is rounding
    scale = np.sqrt(np.where(variance > 1e-9 * variance.max(axis=1, keepdims=True), variance, np.inf))
    pairs = first != second
    return scatter[:, pairs] / (scale[:, first[pairs]] * scale[:, second[pairs]])

"""Means, quantiles and medians of the cells that are chosen, in every draw at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from scldm.evaluation.compare import Masks, Rows

__all__ = ["mean_of", "median_ratio", "ordered", "quantile_of"]

X = Float[np.ndarray, "n features"]
Y = Float[np.ndarray, "m features"]


def mean_of(values: Float[np.ndarray, " cells"], chosen: Masks) -> Rows:
    """Average over the chosen cells a quantity that every cell has."""
    return chosen.astype(np.float64) @ np.asarray(values, dtype=np.float64) / np.maximum(chosen.sum(axis=1), 1)


def ordered(values: Float[np.ndarray, " cells"], chosen: Masks) -> Float[np.ndarray, "rows chosen"]:
    """Sort the values of the chosen cells.

    Raises ``ValueError`` unless there are equally many in every row.
    """
    sizes = chosen.sum(axis=1)
    if len(sizes) and (sizes != sizes[0]).any():
        raise ValueError("rows choose different numbers of cells")
    order = np.argsort(values, kind="stable")
    n_chosen = int(chosen[0].sum()) if len(chosen) else 0
    return values[order][np.nonzero(chosen[:, order])[1]].reshape(len(chosen), n_chosen)


def quantile_of(
    values: Float[np.ndarray, " cells"], chosen: Masks, level: float, method: Literal["linear", "weibull"] = "linear"
) -> Rows:
    """Compute a quantile of the chosen cells, as `numpy.quantile` does by these methods."""
    found = ordered(values, chosen)
    last = found.shape[1] - 1
    place = min(max(level * last if method == "linear" else level * (last + 2) - 1, 0), last)
    low = int(place)
    high = min(low + 1, last)
    return found[:, low] + (place - low) * (found[:, high] - found[:, low])


def median_ratio(values: Float[np.ndarray, " cells"], system: Masks, reference: Masks) -> Rows | None:
    """Divide the median of the system's cells by that of the reference; None when the latter is zero somewhere."""
    below = quantile_of(values, reference, 0.5)
    return quantile_of(values, system, 0.5) / below if (below > 0).all() else None

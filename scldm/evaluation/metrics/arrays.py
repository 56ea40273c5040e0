"""Shapes that metrics share: points of two samples, their bootstrap weights, and a number per resample."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

__all__ = ["Rows", "WeightsX", "WeightsY", "X", "Y"]

X = Float[np.ndarray, "n features"]
Y = Float[np.ndarray, "m features"]
WeightsX = Float[np.ndarray, "resamples n"]
WeightsY = Float[np.ndarray, "resamples m"]
#: Row 0 is for the cells as they are, the others for the resamples.
Rows = Float[np.ndarray, " rows"]

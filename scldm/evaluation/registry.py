"""The list of figures of merit: one decorated function each.

To add a figure, write a function of a `Comparison` in `figures.py` and decorate it with `figure`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.cells import Cells
from scldm.evaluation.labels import LabelClassifier
from scldm.evaluation.space import FeatureSpace

__all__ = ["FIGURES", "Comparison", "Direction", "Figure", "Judge", "figure"]

Direction = Literal["lower", "higher", "closest to ceiling"]


@dataclass(frozen=True, eq=False)
class Judge:
    """What was fitted on training cells, once, and is the same for every system.

    Attributes
    ----------
    space
        Where distances are measured.
    correlated_genes
        Positions of the genes whose correlations are compared.
    classifiers
        One per judged condition.
    """

    space: FeatureSpace
    correlated_genes: Int[np.ndarray, " chosen"]
    classifiers: dict[str, LabelClassifier]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One system's cells beside the reference: equally many, over the same genes."""

    judge: Judge
    reference: Cells
    system: Cells
    reference_features: Float[np.ndarray, "n features"]
    system_features: Float[np.ndarray, "n features"]


@dataclass(frozen=True)
class Figure:
    """A named figure of merit.

    Attributes
    ----------
    name
        Key in the report; a figure with one value per condition is reported as ``name[condition]``.
    direction
        Which values are good.
    description
        One sentence that says what is computed.
    compute
        Gives the value; None if the cells do not allow it (such as a system without labels).
    per_condition
        Whether the figure is computed once for every judged condition, whose name is the second argument.
    """

    name: str
    direction: Direction
    description: str
    compute: Callable[..., float | None]
    per_condition: bool = False


FIGURES: dict[str, Figure] = {}


def figure(
    name: str, direction: Direction, description: str, per_condition: bool = False
) -> Callable[[Callable[..., float | None]], Callable[..., float | None]]:
    """Register a function as a figure of merit; see `Figure` for the arguments."""

    def register(compute: Callable[..., float | None]) -> Callable[..., float | None]:
        if name in FIGURES:
            raise ValueError(f"there is already a figure named '{name}'")
        FIGURES[name] = Figure(name, direction, description, compute, per_condition)
        return compute

    return register

"""The list of figures of merit: one decorated function each.

To add a figure, write a function of a `Comparison` in the file of `figures/` where it belongs and decorate it with
`figure`; it then appears in the table, the JSON file and the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.cells import Cells
from scldm.evaluation.labels import LabelClassifier
from scldm.evaluation.neighbours import Neighbourhoods
from scldm.evaluation.resampling import Estimate
from scldm.evaluation.space import Space

__all__ = ["FIGURES", "PRIMARY_SPACE", "Comparison", "Direction", "Figure", "Group", "Judge", "Scope", "Side", "figure"]

Direction = Literal["lower", "higher", "closest to ceiling"]
Group = Literal["distances", "genes", "labels", "memorisation", "depth"]
Scope = Literal["once", "space", "condition"]

PRIMARY_SPACE = "pca"


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes
    ----------
    cells
        Counts and labels.
    features
        Positions of the cells in every space, by its name.
    weights
        How often every cell is in every bootstrap resample.
    """

    cells: Cells
    features: Mapping[str, Float[np.ndarray, "cells features"]]
    weights: Float[np.ndarray, "resamples cells"]

    def take(self, cells: Int[np.ndarray, " chosen"]) -> Side:
        """Select cells by position."""
        features = {name: values[cells] for name, values in self.features.items()}
        return Side(self.cells.take(cells), features, self.weights[:, cells])


@dataclass(frozen=True, eq=False)
class Judge:
    """What was fitted on training cells, once, and is the same for every system.

    Attributes
    ----------
    spaces
        Where distances are measured, by name; the first is `PRIMARY_SPACE`.
    correlated_genes
        Positions of the genes whose correlations are compared.
    classifiers
        One per judged condition with two labels or more; trained in the primary space.
    fitting
        The cells that all this was fitted on.
    training
        The training cells; None when none were given (`fitting` is then a third of the real cells).
    """

    spaces: Mapping[str, Space]
    correlated_genes: Int[np.ndarray, " chosen"]
    classifiers: Mapping[str, LabelClassifier]
    fitting: Side
    training: Side | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """One system's cells beside the reference, over the same genes.

    For most figures both sides have equally many cells and the reference is one half of the held-out cells. A figure
    over *all* cells (see `Figure.all_cells`) has all held-out cells on one side and all cells of the system on the
    other; the ceiling's are then the held-out cells themselves.

    Attributes
    ----------
    judge
        What was fitted on training cells.
    reference, system
        The two sides.
    release
        All cells of the system, which is what an attacker would have (of very many, a part); of the ceiling the half
        that is compared.
    split
        Number of the split.
    """

    judge: Judge
    reference: Side
    system: Side
    release: Side
    split: int = 0
    _neighbourhoods: dict[str, Neighbourhoods] = field(default_factory=dict, repr=False)

    def neighbourhoods(self, space: str) -> Neighbourhoods:
        """Nearest neighbours within and between the two sides, computed once per space."""
        if space not in self._neighbourhoods:
            found = Neighbourhoods.find(self.reference.features[space], self.system.features[space])
            self._neighbourhoods[space] = found
        return self._neighbourhoods[space]


@dataclass(frozen=True)
class Figure:
    """A named figure of merit.

    Attributes
    ----------
    name
        Key in the report. With the scope ``condition`` it is reported as ``name[condition]``; with the scope
        ``space`` as ``name`` for the primary space and ``name[space]`` for the others.
    group
        Section of the report.
    direction
        Which values are good.
    description
        One sentence that says what is computed.
    compute
        Gives the estimate; None if the cells do not allow it (such as a system without labels).
    scope
        How often it is computed: once, once for every space, or once for every judged condition; the name of the space
        or condition is the second argument.
    all_cells
        Whether it is computed over all cells instead of equally many (for figures that do not depend on the number).
    """

    name: str
    group: Group
    direction: Direction
    description: str
    compute: Callable[..., Estimate | None]
    scope: Scope = "once"
    all_cells: bool = False


FIGURES: dict[str, Figure] = {}


def figure(
    name: str,
    group: Group,
    direction: Direction,
    description: str,
    *,
    scope: Scope = "once",
    all_cells: bool = False,
) -> Callable[[Callable[..., Estimate | None]], Callable[..., Estimate | None]]:
    """Register a function as a figure of merit; see `Figure` for the arguments."""

    def register(compute: Callable[..., Estimate | None]) -> Callable[..., Estimate | None]:
        if name in FIGURES:
            raise ValueError(f"there is already a figure named '{name}'")
        FIGURES[name] = Figure(name, group, direction, description, compute, scope, all_cells)
        return compute

    return register

"""What is compared with what: the two sides of a comparison, and the splits of the held-out cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.cells import Cells
from scldm.evaluation.draws import split, stratified_choice
from scldm.evaluation.spaces import Space
from scldm.evaluation.systems import CEILING
from scldm.seeds import numpy_rng

__all__ = ["N_CORRELATED_GENES", "Comparison", "Fitted", "Side", "Split", "take_split", "take_splits"]

# At a few hundred cells, correlations of rarer genes are mostly sampling noise: two halves of the same 1,160 real PBMCs
# agree to .88 over the 200 most abundant genes and to .93 over these 50 (a baseline without correlations: .83 and .89).
N_CORRELATED_GENES = 50

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Keeper:
    """Something that keeps what was computed of it as long as it lives."""

    _kept: dict[str, Any] = field(default_factory=dict, repr=False, kw_only=True)

    def once(self, what: str, compute: Callable[[], T]) -> T:
        """Compute something when it is first asked for, and keep it."""
        if what not in self._kept:
            self._kept[what] = compute()
        return self._kept[what]


@dataclass(frozen=True, eq=False)
class Side(_Keeper):
    """One side of a comparison: cells, their positions in every space, and their bootstrap weights.

    A weight is how often a cell is in a bootstrap resample.
    """

    cells: Cells
    features: Mapping[str, Float[np.ndarray, "cells features"]]
    weights: Float[np.ndarray, "resamples cells"]

    def take(self, cells: Int[np.ndarray, " chosen"]) -> Side:
        """Select cells by position."""
        features = {name: values[cells] for name, values in self.features.items()}
        return Side(self.cells.take(cells), features, self.weights[:, cells])

    @property
    def rows(self) -> Float[np.ndarray, "rows cells"]:
        """Weights of the cells as they are (ones, in row 0), then of every resample."""
        return np.vstack([np.ones(len(self.cells)), self.weights])

    def labels(self, condition: str) -> np.ndarray | None:
        """Labels of the cells, None for a missing one; None without the column."""
        table = self.cells.labels
        return table[condition].to_numpy(dtype=object) if condition in table else None


@dataclass(frozen=True, eq=False)
class Fitted:
    """What was fitted on training cells, once, and is the same for every system.

    Distances are measured in the spaces, of which the first is the primary one. The classifiers (pipelines of
    scikit-learn) are trained there, one per judged condition with two labels or more. All this was fitted on `fitting`:
    some of the training cells, or a third of the real cells when none were given (`training` is then None).
    """

    spaces: Mapping[str, Space]
    classifiers: Mapping[str, Any]
    fitting: Side
    training: Side | None

    @cached_property
    def correlated_genes(self) -> Int[np.ndarray, " chosen"]:
        """Positions of the genes whose correlations are compared: the most abundant in the fitting cells."""
        return np.argsort(-self.fitting.cells.gene_means, kind="stable")[:N_CORRELATED_GENES]


@dataclass(frozen=True, eq=False)
class Comparison(_Keeper):
    """One system's cells beside the reference, over the same genes.

    For most metrics both sides have equally many cells and the reference is one half of the held-out cells. A metric
    over *all* cells has all held-out cells on one side and all cells of the system on the other; the ceiling's are then
    the held-out cells themselves. The release is all cells of the system, which is what an attacker would have (of very
    many, a part); of the ceiling it is the half that is compared.
    """

    fitted: Fitted
    reference: Side
    system: Side
    release: Side
    split: int = 0


@dataclass(frozen=True, eq=False)
class Split:
    """One half of the held-out cells, and as many cells of every system; ``ceiling`` is the other half."""

    reference: Side
    systems: Mapping[str, Side]
    number: int = 0


def take_splits(held_out: Side, systems: Mapping[str, Side], n_cells: int, n_splits: int, seed: int) -> Iterator[Split]:
    """Divide the held-out cells, one time after the other; without a ceiling they stay whole, once."""
    if CEILING in systems:
        yield from (take_split(held_out, systems, n_cells, number, seed) for number in range(n_splits))
    else:
        sides = {name: _take(side, n_cells, seed, name) for name, side in systems.items()}
        yield Split(_take(held_out, n_cells, seed, "reference"), sides)


def take_split(held_out: Side, systems: Mapping[str, Side], n_cells: int, number: int, seed: int) -> Split:
    """Divide the held-out cells in halves, and take as many cells of every system, by label.

    The system ``ceiling`` stands for the other half of the held-out cells. Every number gives another division.
    """
    ceiling, reference = (
        held_out.take(part) for part in split(held_out.cells.labels, 2, numpy_rng(seed, f"split {number}"))
    )
    halves = {**systems, CEILING: ceiling} if CEILING in systems else systems
    sides = {name: _take(side, n_cells, seed, f"{name} {number}") for name, side in halves.items()}
    return Split(_take(reference, n_cells, seed, f"reference {number}"), sides, number)


def _take(side: Side, n_cells: int, seed: int, purpose: str) -> Side:
    """Draw as many cells of a side, by label."""
    if len(side.cells) == n_cells:
        return side
    return side.take(stratified_choice(side.cells.labels, n_cells, numpy_rng(seed, purpose)))

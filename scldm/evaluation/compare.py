"""What is compared with what: cells placed in spaces, and the cells of both sides in many draws of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from scldm.evaluation.cells import Cells
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, frequent_labels
from scldm.evaluation.spaces import Space
from scldm.seeds import numpy_rng

__all__ = ["N_CORRELATED_GENES", "Comparison", "Fitted", "Masks", "Rows", "Side"]

# At a few hundred cells, correlations of rarer genes are mostly sampling noise: two halves of the same 1,160 real PBMCs
# agree to .88 over the 200 most abundant genes and to .93 over these 50 (a baseline without correlations: .83 and .89).
N_CORRELATED_GENES = 50

#: A number for every draw of the cells.
Rows = Float[np.ndarray, " rows"]
#: Which cells are chosen in every draw.
Masks = Bool[np.ndarray, "rows cells"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Keeper:
    """Something that keeps what was computed of it as long as it lives."""

    _kept: dict[str, Any] = field(default_factory=dict, repr=False, init=False)

    def once(self, what: str, compute: Callable[[], T]) -> T:
        """Compute something when it is first asked for, and keep it."""
        if what not in self._kept:
            self._kept[what] = compute()
        return self._kept[what]


@dataclass(frozen=True, eq=False)
class Side(_Keeper):
    """Some cells and their positions in every space."""

    cells: Cells
    features: Mapping[str, Float[np.ndarray, "cells features"]]

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, cells: Int[np.ndarray, " chosen"]) -> Side:
        """Select cells by position."""
        return Side(self.cells.take(cells), {name: values[cells] for name, values in self.features.items()})

    def and_then(self, other: Side) -> Side:
        """Put the cells of another side behind these; columns of labels that one of them lacks are left out."""
        features = {name: np.concatenate([values, other.features[name]]) for name, values in self.features.items()}
        return Side(self.cells.and_then(other.cells), features)

    def labels(self, condition: str) -> np.ndarray | None:
        """Labels of the cells, None for a missing one; None without the column."""
        table = self.cells.labels
        return table[condition].to_numpy(dtype=object) if condition in table else None


@dataclass(frozen=True, eq=False)
class Fitted(_Keeper):
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
    """Cells of a system beside as many real cells, drawn many times from one pool: a metric has a value for every draw.

    Attributes
    ----------
    fitted
        What all comparisons share.
    pool
        All cells that are drawn from: those of the system and the held-out ones.
    system, reference
        Which of them are the system's, and which the reference, in every draw: equally many everywhere, and none on
        both sides.
    release
        All cells of the system, which is what an attacker would have (of very many, a part); None where it is the
        cells that are drawn, as for the ceiling.
    held_out
        All held-out cells.
    seed
        Of whatever a metric draws; see `rng`.
    """

    fitted: Fitted
    pool: Side
    system: Masks
    reference: Masks
    held_out: Side
    release: Side | None = None
    seed: int = 0

    def rng(self, purpose: str) -> np.random.Generator:
        """Give the random numbers for one purpose; the same ones in every comparison of an evaluation."""
        return numpy_rng(self.seed, purpose)

    def judged_labels(self, condition: str) -> list[str] | None:
        """List the labels of which enough cells are expected on either side, in alphabetical order.

        By their shares of the fitting cells, and not by how many happen to be drawn: real cells would then not be
        judged as the system is. None where a side has no labels of the condition.
        """
        fitting = self.fitted.fitting.labels(condition)
        if fitting is None or self.pool.labels(condition) is None or self.held_out.labels(condition) is None:
            return None
        n_cells = int(self.reference[0].sum()) if self.n_rows else 0
        least = max(math.ceil(MIN_CELLS_PER_LABEL * len(fitting) / max(n_cells, 1)), 1)
        return frequent_labels(fitting, least)

    @property
    def n_rows(self) -> int:
        """Number of draws."""
        return len(self.system)

    @cached_property
    def draws(self) -> list[tuple[Int[np.ndarray, " cells"], Int[np.ndarray, " cells"]]]:
        """Positions of the system's cells and of the reference in every draw."""
        return [(np.flatnonzero(s), np.flatnonzero(r)) for s, r in zip(self.system, self.reference, strict=True)]

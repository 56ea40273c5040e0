"""Halvings: the held-out cells in two halves, ceiling and reference, and as many cells of a system beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from scldm.evaluation.compare import Masks
from scldm.evaluation.draws import group_halves, shuffled_within, split, stratified_choice
from scldm.seeds import numpy_rng

__all__ = ["Grouped", "Halved", "Independent", "Paired", "Scheme"]

Positions = Int[np.ndarray, " _"]
Codes = Int[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class Halved:
    """Three sets of equally many cells of one pool in every row, one row per halving."""

    system: Masks
    ceiling: Masks
    reference: Masks


@dataclass(frozen=True, eq=False)
class Scheme(ABC):
    """How the cells of a pool are drawn, as they are and under the hypothesis that the system is real.

    The pool has the cells of the system first, then the held-out ones.

    Attributes
    ----------
    n_system, n_held_out
        How many cells there are of both.
    n_cells
        How many are compared on either side.
    codes
        For every cell of the pool, the number of its combination of labels, whose shares halves keep.
    seed
        Of all draws.
    """

    n_system: int
    n_held_out: int
    n_cells: int
    codes: Codes
    seed: int

    def halvings(self, n_halvings: int) -> Halved:
        """Draw the halvings of the cells as they are: those of the held-out cells are the same for every system."""
        system, held_out = np.arange(self.n_system), self.n_system + np.arange(self.n_held_out)
        return self._masks([self._halve(system, held_out, k) for k in range(n_halvings)])

    @abstractmethod
    def permuted(self, n_halvings: int, numbers: range) -> Iterator[Halved]:
        """Draw the halvings anew under the hypothesis, once for every number."""

    def _halve(self, system: Positions, held_out: Positions, number: int) -> tuple[Positions, Positions, Positions]:
        """Halve the held-out cells, and draw as many of the system: positions of system, ceiling and reference."""
        rng = numpy_rng(self.seed, f"halving {number}")
        ceiling, reference = (held_out[part] for part in split(self.codes[held_out], 2, rng))
        ceiling, reference = (self._choose(part, rng) for part in (ceiling, reference))
        return self._choose(system, numpy_rng(self.seed, f"system {number}")), ceiling, reference

    def _choose(self, cells: Positions, rng: np.random.Generator) -> Positions:
        """Draw as many as are compared."""
        return cells[stratified_choice(self.codes[cells], self.n_cells, rng)]

    def _masks(self, halves: list[tuple[Positions, Positions, Positions]]) -> Halved:
        masks = []
        for one in zip(*halves, strict=True):
            mask: Bool[np.ndarray, "rows cells"] = np.zeros((len(halves), self.n_system + self.n_held_out), dtype=bool)
            for row, cells in zip(mask, one, strict=True):
                row[cells] = True
            masks.append(mask)
        return Halved(*masks)


@dataclass(frozen=True, eq=False)
class Independent(Scheme):
    """Cells of a system that have nothing to do with any one held-out cell.

    Were the system real, its cells and the held-out ones could be exchanged: permuted, cells of the pool are dealt
    anew to both. Where the system has every combination of labels as often as the held-out cells, to within one of the
    compared cells, these shares are no accident, and cells are exchanged only within a combination.
    """

    def permuted(self, n_halvings: int, numbers: range) -> Iterator[Halved]:
        """See `Scheme`."""
        within = self.codes if self._same_shares() else np.zeros_like(self.codes)
        for number in numbers:
            dealt = shuffled_within(within, numpy_rng(self.seed, f"permutation {number}"))
            system, held_out = np.sort(dealt[: self.n_system]), np.sort(dealt[self.n_system :])
            # every permutation has halvings of its own: a pool that happens to be halved badly would be so in all
            first = (number + 1) * n_halvings
            yield self._masks([self._halve(system, held_out, first + k) for k in range(n_halvings)])

    def _same_shares(self) -> bool:
        n_codes = int(self.codes.max(initial=0)) + 1
        own, real = (
            np.bincount(codes, minlength=n_codes) / len(codes)
            for codes in (self.codes[: self.n_system], self.codes[self.n_system :])
        )
        return bool((np.abs(own - real) * self.n_cells <= 1.0).all())


@dataclass(frozen=True, eq=False)
class Paired(Scheme):
    """A system whose cell i was made from held-out cell i, such as by an autoencoder.

    The system's cells are the counterparts of the ceiling's, never of the reference. Were the system real, each could
    be exchanged with its counterpart: permuted, a coin decides for every pair.

    Attributes
    ----------
    groups
        For every held-out cell, the number of its group, if halves keep groups whole.
    """

    groups: Codes | None = None

    def permuted(self, n_halvings: int, numbers: range) -> Iterator[Halved]:
        """See `Scheme`."""
        pairs = np.stack([np.arange(self.n_system), self.n_system + np.arange(self.n_held_out)])
        for number in numbers:
            swapped = numpy_rng(self.seed, f"permutation {number}").random(self.n_system) < 0.5
            system, held_out = np.where(swapped, pairs[::-1], pairs)
            first = (number + 1) * n_halvings
            yield self._masks([self._halve(system, held_out, first + k) for k in range(n_halvings)])

    def _halve(self, system: Positions, held_out: Positions, number: int) -> tuple[Positions, Positions, Positions]:
        rng = numpy_rng(self.seed, f"halving {number}")
        halves = split(self.codes[held_out], 2, rng) if self.groups is None else group_halves(self.groups, rng)
        of_ceiling, of_reference = (self._choose(part, rng) for part in halves)
        return system[of_ceiling], held_out[of_ceiling], held_out[of_reference]

    def _choose(self, cells: Positions, rng: np.random.Generator) -> Positions:
        # of the held-out cells, whose labels the counterparts have
        return cells[stratified_choice(self.codes[self.n_system + cells], self.n_cells, rng)]


@dataclass(frozen=True, eq=False)
class Grouped(Scheme):
    """Held-out cells of groups, such as donors, that a generator is not expected to have met.

    A halving keeps groups whole, so that the ceiling is real cells of *other* groups. The hypothesis is that the system
    is such cells; it has no groups that could be permuted, so it stands for the system that the ceiling of another
    halving is drawn in its place. There are halvings of their own for that, and what a metric says of them is set
    against its mean over all (see `scldm.evaluation.null`).

    Attributes
    ----------
    groups
        For every held-out cell, the number of its group.
    """

    groups: Codes

    def permuted(self, n_halvings: int, numbers: range) -> Iterator[Halved]:
        """See `Scheme`; one halving for every number, in which the system is the ceiling."""
        held_out = self.n_system + np.arange(self.n_held_out)
        for number in numbers:
            ceiling, reference = self._halves(held_out, 1_000_000 + number)
            yield self._masks([(ceiling, ceiling, reference)])

    def _halve(self, system: Positions, held_out: Positions, number: int) -> tuple[Positions, Positions, Positions]:
        ceiling, reference = self._halves(held_out, number)
        return self._choose(system, numpy_rng(self.seed, f"system {number}")), ceiling, reference

    def _halves(self, held_out: Positions, number: int) -> tuple[Positions, Positions]:
        rng = numpy_rng(self.seed, f"halving {number}")
        ceiling, reference = (held_out[part] for part in group_halves(self.groups, rng))
        return self._choose(ceiling, rng), self._choose(reference, rng)

"""The cells that figures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Side
from scldm.evaluation.systems import REFERENCE, REFERENCE_COLOUR, REFERENCE_NAME, Systems

__all__ = ["MAX_LABELS", "Placement", "PlottedCells", "plain", "shuffled"]

MAX_LABELS = 19


def plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs in the names of labels, genes and systems as mathematics."""
    return text.replace("$", r"\$")


@dataclass(frozen=True, eq=False)
class PlottedCells:
    """The cells of the reference and of every system of one comparison.

    Attributes
    ----------
    sides
        Cells by system, with those of ``reference``.
    systems
        What is in `sides` besides the reference.
    label
        Column of labels that colours and groups the cells; None when there is none.
    """

    sides: Mapping[str, Side]
    systems: Systems
    label: str | None

    @classmethod
    def of(cls, sides: Mapping[str, Side], systems: Systems, label: str | None) -> PlottedCells:
        """Keep the systems that have cells, and the label if the reference has it."""
        known = label is not None and label in sides[REFERENCE].cells.labels
        return cls(sides, systems.restricted_to(sides), label if known else None)

    @property
    def reference(self) -> Cells:
        """The held-out real cells."""
        return self.sides[REFERENCE].cells

    @property
    def real_and_generated(self) -> tuple[str, ...]:
        """The reference and the generators: what most figures show."""
        return (REFERENCE, *self.systems.generators)

    @property
    def n_labels(self) -> int:
        """How many labels the reference has."""
        return 0 if self.label is None else int(self.reference.labels[self.label].nunique())

    def colour(self, name: str) -> str:
        """Look up the colour of the reference or a system."""
        return REFERENCE_COLOUR if name == REFERENCE else self.systems.named(name).colour

    def title(self, name: str) -> str:
        """Name the reference or a system, as matplotlib has to be given it."""
        return plain(REFERENCE_NAME if name == REFERENCE else self.systems.named(name).display_name)

    def labels(self, name: str) -> np.ndarray | None:
        """Give the labels of a system's cells; None when it has none."""
        return None if self.label is None else self.sides[name].labels(self.label)

    def frequent_labels(self, n_labels: int = MAX_LABELS) -> list[str]:
        """List the labels of most cells of the reference, in alphabetical order, also among equally frequent ones."""
        if self.label is None:
            return []
        numbers: Any = self.reference.labels[self.label].dropna().value_counts()
        by_number = sorted(numbers.index, key=lambda label: (-int(numbers[label]), label))
        return sorted(by_number[:n_labels])


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the cells to draw lie in a plane.

    Attributes
    ----------
    chosen
        Which cells of every system, in random order.
    positions
        Their positions.
    axis_name
        ``UMAP`` or ``PC``.
    """

    chosen: Mapping[str, Int[np.ndarray, " _"]]
    positions: Mapping[str, Float[np.ndarray, "_ 2"]]
    axis_name: str


def shuffled(n_cells: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Choose cells to draw, in random order, so that none is always on top; the same ones every time."""
    return np.random.default_rng(0).permutation(n_cells)[:most]

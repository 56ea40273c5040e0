"""The cells that figures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from scldm.evaluation.cells import Cells
from scldm.evaluation.registry import Side
from scldm.evaluation.systems import REFERENCE, REFERENCE_COLOUR, REFERENCE_NAME, Systems

__all__ = ["MAX_LABELS", "PlottedCells", "shuffled"]

MAX_LABELS = 19


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
    def generators(self) -> tuple[str, ...]:
        """Names of the judged generators."""
        return self.systems.generators

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines."""
        return self.systems.baselines

    @property
    def real_and_generated(self) -> tuple[str, ...]:
        """The reference and the generators: what most figures show."""
        return (REFERENCE, *self.generators)

    @property
    def n_labels(self) -> int:
        """How many labels the reference has."""
        return 0 if self.label is None else int(self.reference.labels[self.label].nunique())

    def colour(self, name: str) -> str:
        """Look up the colour of the reference or a system."""
        return REFERENCE_COLOUR if name == REFERENCE else self.systems.named(name).colour

    def title(self, name: str) -> str:
        """Name the reference or a system."""
        return REFERENCE_NAME if name == REFERENCE else self.systems.named(name).display_name

    def labels(self, name: str) -> np.ndarray | None:
        """Give the labels of a system's cells; None when it has none."""
        table = self.sides[name].cells.labels
        return None if self.label is None or self.label not in table else table[self.label].to_numpy(dtype=object)

    def frequent_labels(self, n_labels: int = MAX_LABELS) -> list[str]:
        """List the labels of most cells of the reference, in alphabetical order, also among equally frequent ones."""
        if self.label is None:
            return []
        numbers: Any = self.reference.labels[self.label].dropna().value_counts()
        by_number = sorted(numbers.index, key=lambda label: (-int(numbers[label]), label))
        return sorted(by_number[:n_labels])


def shuffled(n_cells: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Choose cells to draw, in random order, so that none is always on top; the same ones every time."""
    return np.random.default_rng(0).permutation(n_cells)[:most]

"""The cells that figures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Fitted, Side
from scldm.evaluation.systems import REFERENCE, REFERENCE_COLOUR, REFERENCE_NAME, Systems

__all__ = ["MAX_LABELS", "DrawnCells", "plain"]

MAX_LABELS = 19


def plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs in the names of labels, genes and systems as mathematics."""
    return text.replace("$", r"\$")


@dataclass(frozen=True, eq=False)
class DrawnCells:
    """The cells of the first halving, for figures; not part of the saved numbers.

    The sides are ``reference`` and those of all systems by name, with equally many cells. By the label, a judged
    condition, cells are coloured and grouped; it is None without any.
    """

    sides: Mapping[str, Side]
    systems: Systems
    fitted: Fitted
    label: str | None

    @classmethod
    def of(cls, sides: Mapping[str, Side], systems: Systems, fitted: Fitted, label: str | None) -> DrawnCells:
        """Keep the systems that have cells, and the label if the reference has it."""
        known = label is not None and label in sides[REFERENCE].cells.labels
        return cls(sides, systems.restricted_to(sides), fitted, label if known else None)

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

"""Which cells a run learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scldm.errors import require
from scldm.sections import HARMLESS, check_numbers

__all__ = ["DataConfig"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which cells to learn from, and which obs columns describe them."""

    path: str | None = field(default=None, metadata=HARMLESS)
    """An .h5ad file with UMI counts, or `demo` for the embedded data. None when an AnnData is passed from Python."""
    layer: str | None = None
    """Layer that holds the counts; None reads X."""
    conditions: tuple[str, ...] = ()
    """Categorical obs columns to condition on."""
    continuous: tuple[str, ...] = ()
    """Continuous obs columns to condition on."""
    missing_labels: Literal["error", "unlabelled"] = "error"
    """What a missing label means: refuse the file, or train the cell without that attribute."""
    min_cells_per_gene: int = 3
    """Genes expressed in fewer cells are left out of the model."""
    validation_fraction: float = 0.1
    """Share of the cells kept out of training to decide when to stop."""
    group_by: str | None = None
    """Obs column (for instance donor) whose groups are never split between training and validation."""
    backed: bool = field(default=False, metadata=HARMLESS)
    """Read cells from disk on demand instead of loading the matrix into memory."""
    unpack: bool = field(default=True, metadata=HARMLESS)
    """With `backed`: unpack the counts once into the working directory of the run (from Python without one: a temporary
    directory), six bytes for every positive count, so that random cells are read without decompressing their
    neighbours. False reads the file itself in every step."""

    def __post_init__(self) -> None:
        check_numbers(self, "data.")
        require(
            self.min_cells_per_gene >= 1,
            f"data.min_cells_per_gene is {self.min_cells_per_gene}; it must be at least 1.",
        )
        require(
            0 < self.validation_fraction < 1,
            f"data.validation_fraction is {self.validation_fraction}; it must be above 0 and below 1.",
        )

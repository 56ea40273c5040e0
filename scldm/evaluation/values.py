"""Numbers with their intervals, as they stand in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scldm.evaluation.resampling import Estimate

if TYPE_CHECKING:  # the registry needs classifiers of labels, whose results are values
    from scldm.evaluation.registry import Direction, Group

__all__ = ["FigureValues", "Value"]


@dataclass(frozen=True)
class Value:
    """The value of a figure, and its bootstrap interval (95 %); None where a figure has none."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, estimate: Estimate | None) -> Value | None:
        """Keep of an estimate what is reported; None for one that could not be computed or is not a finite number."""
        if estimate is None or not math.isfinite(estimate.value):
            return None
        low, high = estimate.interval or (math.nan, math.nan)
        if not (math.isfinite(low) and math.isfinite(high)):
            return cls(float(estimate.value))
        return cls(float(estimate.value), low, high)


@dataclass(frozen=True)
class FigureValues:
    """One figure of merit for every system; a value is None where it could not be computed.

    Attributes
    ----------
    name
        As registered, with the space or condition in brackets where there are several: ``mmd2[hvg]``.
    group
        Section of the report.
    direction
        Which values are good.
    description
        What is computed, in one sentence.
    values
        By system.
    """

    name: str
    group: Group
    direction: Direction
    description: str
    values: dict[str, Value | None]

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> FigureValues:
        """Rebuild it from ``dataclasses.asdict``."""
        values = {system: None if value is None else Value(**value) for system, value in row["values"].items()}
        return cls(**{**row, "values": values})

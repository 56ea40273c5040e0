"""What the pictures of a report are drawn from: the cells themselves. Not part of the saved numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scldm.evaluation.registry import Judge, Side

__all__ = ["Exhibits"]


@dataclass(frozen=True, eq=False)
class Exhibits:
    """The cells of the first split, and the judge.

    Attributes
    ----------
    sides
        ``reference`` and every system by name, all with equally many cells. The profile ``published`` has no
        ``ceiling``.
    judge
        Its spaces, and which genes it correlates.
    label
        The first judged condition, by which cells are coloured and grouped; None without any.
    """

    sides: Mapping[str, Side]
    judge: Judge
    label: str | None

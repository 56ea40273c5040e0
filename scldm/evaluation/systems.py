"""The systems of a report: what each of them is, what it is called, its colour, and its place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["CEILING", "MEMORISER", "REFERENCE", "Kind", "System", "Systems"]

Kind = Literal["ceiling", "generator", "baseline", "memoriser"]

REFERENCE, CEILING, MEMORISER = "reference", "ceiling", "memoriser"

REFERENCE_NAME, REFERENCE_COLOUR = "held-out real cells", "#333333"
_NAMES = {
    CEILING: "real against real",
    "generated": "generated cells",
    "independent_nb": "independent NB",
    "pca_gaussian": "PCA Gaussian",
    "scvi": "scVI",
}
_COLOURS: dict[Kind, tuple[str, ...]] = {
    "ceiling": ("#7f7f7f",),
    "generator": ("#d1495b", "#edae49", "#2a9d8f", "#8d6b4f", "#c77dba"),
    "baseline": ("#3f7cac", "#8064a2", "#1f4e79", "#7fb2d6"),
    "memoriser": ("#9a8c98",),
}


@dataclass(frozen=True)
class System:
    """One system that is compared with the reference.

    Attributes
    ----------
    name
        Key in the report, such as ``independent_nb``.
    kind
        The ceiling, a judged generator, a baseline, or the memoriser.
    meaning
        What it is, in words.
    display_name
        Name in tables and figures; a name that a caller gave is kept.
    colour
        The same in all figures and in the table, as ``#rrggbb``.
    """

    name: str
    kind: Kind
    meaning: str
    display_name: str
    colour: str


class Systems(tuple[System, ...]):
    """The systems of a report, in the order of the table: ceiling, generators, baselines, memoriser."""

    __slots__ = ()

    @classmethod
    def of(cls, meanings: dict[str, str], generators: Sequence[str]) -> Systems:
        """Sort the systems of a report, given what each is by name; the order among baselines is kept.

        Of the judged generators, the first is the one that findings and figures are about.
        """
        special = {CEILING, MEMORISER, *generators}
        by_kind: dict[Kind, list[str]] = {
            "ceiling": [name for name in meanings if name == CEILING],
            "generator": list(generators),
            "baseline": [name for name in meanings if name not in special],
            "memoriser": [name for name in meanings if name == MEMORISER],
        }
        return cls(
            System(name, kind, meanings.get(name, ""), _NAMES.get(name, name), _COLOURS[kind][i % len(_COLOURS[kind])])
            for kind, names in by_kind.items()
            for i, name in enumerate(names)
        )

    def named(self, name: str) -> System:
        """Look one system up; raises ``KeyError`` if it is not there."""
        for system in self:
            if system.name == name:
                return system
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(system.name for system in self)

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        """Names of the systems of one kind, in order."""
        return tuple(system.name for system in self if system.kind == kind)

    @property
    def generators(self) -> tuple[str, ...]:
        """Names of the judged generators."""
        return self.of_kind("generator")

    @property
    def baselines(self) -> tuple[str, ...]:
        """Names of the baselines."""
        return self.of_kind("baseline")

    def restricted_to(self, names: Iterable[str]) -> Systems:
        """Keep the systems with these names; colours stay as they are."""
        chosen = set(names)
        return Systems(system for system in self if system.name in chosen)

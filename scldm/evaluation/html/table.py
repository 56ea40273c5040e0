"""The table of figures of merit: one section per group and space, one column per system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scldm.evaluation.html.strip import draw_strip
from scldm.evaluation.html.tags import NOTHING, Html, element, join, number, words
from scldm.evaluation.pictures.scene import display_name, system_colours
from scldm.evaluation.registry import PRIMARY_SPACE
from scldm.evaluation.standing import LATENT_SPACE, Standing, in_own_space, standing
from scldm.evaluation.values import FigureValues, Value

__all__ = ["GROUPS", "STANDINGS", "Columns", "count_standings", "figures_table"]

GROUPS = {
    "distances": "Distances between clouds of cells",
    "genes": "Genes",
    "labels": "Labels",
    "memorisation": "Memorisation of training cells",
    "depth": "Sequencing depth",
}
STANDINGS: dict[Standing, tuple[str, str]] = {
    "ceiling": ("●", "at the ceiling"),
    "between": ("◐", "between the ceiling and the best baseline"),
    "behind": ("○", "behind a baseline"),
}
_OWN_SPACE = "the model's own space, so these figures count neither for nor against anyone at the top of the page"
_BEST = {
    "lower": "lower is better",
    "higher": "higher is better",
    "closest to ceiling": "closest to the ceiling is best",
}


@dataclass(frozen=True)
class Columns:
    """The systems of a report in the order of the table."""

    ceiling: tuple[str, ...]
    generators: tuple[str, ...]
    baselines: tuple[str, ...]
    memoriser: tuple[str, ...]

    @classmethod
    def of(cls, systems: Sequence[str], generators: Sequence[str]) -> Columns:
        """Sort the systems of a report."""
        special = {"ceiling", "memoriser", *generators}
        return cls(
            ceiling=tuple(name for name in systems if name == "ceiling"),
            generators=tuple(generators),
            baselines=tuple(name for name in systems if name not in special),
            memoriser=tuple(name for name in systems if name == "memoriser"),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All systems, from left to right."""
        return (*self.ceiling, *self.generators, *self.baselines, *self.memoriser)

    @property
    def colours(self) -> dict[str, str]:
        """Colour of every system."""
        return system_colours(self.generators, self.baselines)


def count_standings(rows: Sequence[FigureValues], system: str, columns: Columns) -> dict[Standing, int]:
    """Count in how many figures a system stands where; distances in a model's own space do not count."""
    found = [standing(row, system, columns.baselines) for row in rows if not in_own_space(row)]
    return {where: found.count(where) for where in STANDINGS}


def figures_table(
    rows: Sequence[FigureValues], columns: Columns, meanings: Mapping[str, str], spaces: Mapping[str, str]
) -> Html:
    """Write the whole table.

    Parameters
    ----------
    rows
        The figures of merit.
    columns
        The systems.
    meanings
        What every system is, in words.
    spaces
        Description of every space, by name.
    """
    head = [
        element("th", "figure of merit", scope="col", class_="name"),
        element("th", "all on one scale", scope="col", class_="strip"),
    ]
    for name in columns.names:
        swatch = element("span", class_="swatch", style=f"background:{columns.colours[name]}")
        # a table needs short names; what they mean is the tooltip and in the definitions
        short = {"ceiling": "ceiling", "generated": "generated"}.get(name, display_name(name))
        head.append(element("th", swatch, short, scope="col", class_="value", title=meanings.get(name)))
    bodies = []
    for heading, note, members in _sections(rows, spaces):
        title = element(
            "th", heading, *([element("small", note)] if note else []), scope="rowgroup", colspan=str(len(head))
        )
        body = [_row(row, columns, described) for row, described in members]
        bodies.append(element("tbody", element("tr", title, class_="group"), *body))
    return element(
        "div", element("table", element("thead", element("tr", *head)), *bodies, class_="figures"), class_="wide"
    )


Section = tuple[str, str, list[tuple[FigureValues, bool]]]


def _sections(rows: Sequence[FigureValues], spaces: Mapping[str, str]) -> list[Section]:
    """Group the figures; every space of distances is a section. A figure is described where it first appears."""
    primary = next(iter(spaces), PRIMARY_SPACE)
    sections: dict[tuple[str, str], list[tuple[FigureValues, bool]]] = {}
    described: set[str] = set()
    for group in dict.fromkeys([*GROUPS, *(row.group for row in rows)]):
        for row in rows:
            if row.group == group:
                base, argument = split_name(row.name)
                space = (argument if argument in spaces else primary) if group == "distances" else ""
                sections.setdefault((group, space), []).append((row, base not in described))
                described.add(base)
    result = []
    for (group, space), members in sections.items():
        heading = GROUPS.get(group, words(group))
        note = f"{spaces[space]}; {_OWN_SPACE}" if space == LATENT_SPACE else spaces.get(space, "")
        result.append((f"{heading}: space “{space}”" if space else heading, note, members))
    return result


def split_name(name: str) -> tuple[str, str]:
    """Split ``mmd2[hvg]`` into the figure and what is in brackets (empty without)."""
    base, bracket, rest = name.partition("[")
    return base, rest.removesuffix("]") if bracket else ""


def _row(row: FigureValues, columns: Columns, described: bool) -> Html:
    """Write one figure of merit."""
    base, argument = split_name(row.name)
    inside = f" · {argument}" if argument and row.group != "distances" else ""
    name = [
        element("span", words(base) + inside, class_="figure"),
        " ",
        element("span", _BEST[row.direction], class_="best"),
    ]
    if described:
        name.append(element("span", row.description, class_="description"))
    strip = draw_strip(row.values, columns.generators, columns.baselines, columns.colours)
    cells = [
        element("th", *name, scope="row", class_="name", title=f"{row.name}: {row.description}"),
        element("td", strip, class_="strip"),
    ]
    for system in columns.names:
        where = standing(row, system, columns.baselines) if system in columns.generators else None
        cells.append(_cell(row.values.get(system), where))
    return element("tr", *cells)


def _cell(value: Value | None, where: Standing | None) -> Html:
    """Write one value with its interval; that of a generator is coloured by where it stands."""
    if value is None:
        return element("td", NOTHING, class_="value")
    mark, meaning = STANDINGS[where] if where else ("", None)
    parts: list[str] = [element("span", mark, class_="mark"), " "] if where else []
    parts.append(element("b" if where else "span", number(value.value)))
    if value.low is not None and value.high is not None:
        interval = f"{number(value.low, value.value)} … {number(value.high, value.value)}"
        parts.append(element("span", interval, class_="interval"))
    return element("td", join(*parts), class_=f"value {where or ''}".strip(), title=meaning)

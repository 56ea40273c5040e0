"""What every picture is drawn from: the cells of all systems, and one name and colour for each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from scldm.evaluation.registry import Side

__all__ = [
    "BACKGROUND",
    "DOTS",
    "OTHER_LABEL",
    "Scene",
    "display_name",
    "drawing_style",
    "label_colours",
    "picture_name",
    "plain",
    "shuffled",
    "system_colours",
]

BACKGROUND = "#dddddd"
OTHER_LABEL = "#8c8c8c"
MAX_LABELS = 19
DOTS: Any = {"linewidths": 0, "rasterized": True}

_NAMES = {
    "reference": "held-out real cells",
    "ceiling": "real against real",
    "generated": "generated cells",
    "independent_nb": "independent NB",
    "pca_gaussian": "PCA Gaussian",
    "scvi": "scVI",
    "memoriser": "memoriser",
}
_COLOURS = {"reference": "#333333", "ceiling": "#7f7f7f", "memoriser": "#9a8c98"}
_GENERATORS = ("#d1495b", "#edae49", "#2a9d8f", "#8d6b4f", "#c77dba")
_BASELINES = ("#3f7cac", "#8064a2", "#1f4e79", "#7fb2d6")


def display_name(system: str) -> str:
    """Name a system in words; the name a caller gave is kept."""
    return _NAMES.get(system, system)


def plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs in the names of labels, genes and systems as mathematics."""
    return text.replace("$", r"\$")


def picture_name(system: str) -> str:
    """Name a system in a picture."""
    return plain(display_name(system))


def system_colours(generators: tuple[str, ...], baselines: tuple[str, ...]) -> dict[str, str]:
    """Give every system one colour, the same in all pictures and in the table."""
    colours = dict(_COLOURS)
    for names, palette in ((generators, _GENERATORS), (baselines, _BASELINES)):
        colours.update({name: palette[i % len(palette)] for i, name in enumerate(names)})
    return colours


def drawing_style() -> AbstractContextManager[None]:
    """Set fonts and axes for the duration of one picture."""
    from matplotlib import rc_context

    style: Any = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "white",
    }
    return rc_context(style)


@dataclass(frozen=True, eq=False)
class Scene:
    """The systems to draw.

    Attributes
    ----------
    sides
        Cells by system: ``reference`` and every system of one comparison.
    generators
        Names of the judged generators that are in `sides`; the first is ours.
    baselines
        Names of the baselines that are in `sides`.
    label
        Column of labels to tell cells apart by; None when there is none.
    """

    sides: Mapping[str, Side]
    generators: tuple[str, ...]
    baselines: tuple[str, ...]
    label: str | None

    @classmethod
    def of(cls, sides: Mapping[str, Side], generators: tuple[str, ...], label: str | None) -> Scene:
        """Sort the systems into generators and baselines."""
        other = {"reference", "ceiling", "memoriser", *generators}
        if label is not None and label not in sides["reference"].cells.labels:
            label = None
        return cls(
            sides=sides,
            generators=tuple(name for name in generators if name in sides),
            baselines=tuple(name for name in sides if name not in other),
            label=label,
        )

    @property
    def reference(self) -> Side:
        """The held-out real cells."""
        return self.sides["reference"]

    @property
    def ours(self) -> Side:
        """Cells of the first generator."""
        return self.sides[self.generators[0]]

    @property
    def colours(self) -> dict[str, str]:
        """Colour of every system."""
        return system_colours(self.generators, self.baselines)

    def labels(self, system: str) -> np.ndarray | None:
        """Labels of a system's cells; None when it has none."""
        table = self.sides[system].cells.labels
        return None if self.label is None or self.label not in table else table[self.label].to_numpy(dtype=object)

    def frequent_labels(self, n_labels: int = MAX_LABELS) -> list[str]:
        """Most frequent labels of the reference, in alphabetical order."""
        return [] if self.label is None else _frequent(self.reference.cells.labels[self.label], n_labels)


def label_colours(scene: Scene) -> dict[str, str]:
    """Give the most frequent labels a colour each, in alphabetical order; nothing when there are no labels."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    tab20 = colormaps["tab20"]
    # strong colours first, pale ones after; without the two greys, which are the background
    palette = [tab20(i) for i in range(0, 20, 2) if i != 14] + ["#0b2e6f"]
    palette += [tab20(i) for i in range(1, 20, 2) if i != 15]
    return {name: to_hex(colour) for name, colour in zip(scene.frequent_labels(), palette, strict=False)}


def shuffled(n_cells: int, most: int) -> Int[np.ndarray, " chosen"]:
    """Choose cells to draw, in random order, so that none is always on top; the same ones every time."""
    return np.random.default_rng(0).permutation(n_cells)[:most]


def _frequent(labels: Any, n_labels: int) -> list[str]:
    """Labels of most cells; equally frequent ones are taken in alphabetical order."""
    numbers = labels.dropna().value_counts()
    by_number = sorted(numbers.index, key=lambda name: (-int(numbers[name]), name))
    return sorted(by_number[:n_labels])

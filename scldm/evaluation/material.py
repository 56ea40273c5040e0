"""From the caller's files to the cells that are compared: read, checked, over one list of genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData

from scldm.errors import UserError
from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.preparation import (
    MIN_CELLS_PER_GENE,
    GeneOverlap,
    choose_genes,
    generator,
    repeated_cells,
    split,
    stratified_choice,
)

__all__ = ["MIN_CELLS", "Material", "gather"]

MIN_CELLS = 10
MAX_FITTING_CELLS = 20_000


@dataclass(frozen=True, eq=False)
class Material:
    """All cells of an evaluation, with the judged genes.

    Attributes
    ----------
    held_out
        Real cells to compare with.
    generated
        Those of every generator, and of every baseline that was given.
    train
        Training cells; None when none were given.
    fitting
        Real cells to fit spaces, classifiers and baselines on; not among `held_out` unless the profile wants it so.
    fitting_rows
        Positions of `fitting` among the training cells; None without them.
    genes
        How the genes of the files fit together.
    n_cells
        How many can be compared on either side.
    notes
        What a reader must know about the files.
    """

    held_out: Cells
    generated: dict[str, Cells]
    train: Cells | None
    fitting: Cells
    fitting_rows: np.ndarray | None
    genes: GeneOverlap
    n_cells: int
    notes: list[str]


def gather(
    real: AnnData,
    generated: Mapping[str, AnnData],
    train: AnnData | None,
    *,
    conditions: Sequence[str],
    layer: str | None,
    halves: bool,
    seed: int,
    max_cells: int,
) -> Material:
    """Read and check the files, and choose the genes and the cells to fit on.

    Parameters
    ----------
    real, generated, train, conditions, layer, seed, max_cells
        As in `evaluate`.
    halves
        Whether the reference is one half of the held-out cells, and fitting needs other cells. Otherwise all real cells
        are both, with all their genes.

    Raises
    ------
    UserError
        If a file cannot be judged or there are too few cells.
    """
    titles = {name: "the generated cells" if name == "generated" else f"the cells of '{name}'" for name in generated}
    real_cells = read_cells(real, "the real cells", layer, conditions, optional=False)
    judged = {name: read_cells(a, titles[name], layer, conditions, optional=True) for name, a in generated.items()}
    train_cells = None if train is None else read_cells(train, "the training cells", layer, conditions, optional=False)

    held_out, fitting, rows = real_cells, real_cells, None
    if halves and train_cells is None:
        parts = split(real_cells.labels, 3, generator(seed, "split"))
        held_out, fitting = real_cells.take(np.sort(np.concatenate(parts[:2]))), real_cells.take(parts[2])
    elif halves and train_cells is not None:
        rows = stratified_choice(train_cells.labels, MAX_FITTING_CELLS, generator(seed, "fitting"))
        fitting = train_cells.take(rows)
    by_title = {titles[name]: cells for name, cells in judged.items()}
    genes, overlap = choose_genes(real_cells, by_title, train_cells, fitting, MIN_CELLS_PER_GENE if halves else 1)

    sizes = {title: len(cells) for title, cells in by_title.items()}
    if train_cells is not None:
        sizes["the training cells"] = len(train_cells)
    n_possible = min(max_cells, min(len(held_out) // 2, len(fitting)) if halves else len(held_out))
    n_cells = min(n_possible, *sizes.values())
    if n_cells < MIN_CELLS:
        raise UserError(f"Only {n_cells} cells could be compared with as many others; at least {MIN_CELLS} are needed")
    result = Material(
        held_out=held_out.with_genes(genes),
        generated={name: cells.with_genes(genes) for name, cells in judged.items()},
        train=None if train_cells is None else train_cells.with_genes(genes),
        fitting=fitting.with_genes(genes),
        fitting_rows=rows,
        genes=overlap,
        n_cells=n_cells,
        notes=_notes(judged, titles, fitting if halves else None, train_cells),
    )
    if n_cells < n_possible:
        result.notes.append(
            f"Only {n_cells} cells are compared on either side because there are no more in "
            f"{min(sizes, key=lambda title: sizes[title])}; the held-out cells would allow {n_possible}."
        )
    if train is not None and result.train is not None:
        n_repeated = repeated_cells(real.obs_names, real_cells.with_genes(genes), train.obs_names, result.train)
        if n_repeated:
            warning = f"WARNING: {n_repeated} of the {real.n_obs} held-out real cells are training cells as well."
            result.notes.append(warning)
    return result


def _notes(
    judged: Mapping[str, Cells], titles: Mapping[str, str], fitting: Cells | None, train: Cells | None
) -> list[str]:
    """Say what a reader must know about how the figures came about."""
    if fitting is None:
        return []
    notes = []
    if train is None:
        notes.append(
            "No training cells were given: the spaces, the classifiers and the baselines are fitted on a third of the "
            "real cells; the ceiling and the reference are the other two thirds. Memorisation could not be judged."
        )
    elif len(fitting) < len(train):
        notes.append(f"Spaces, classifiers and baselines are fitted on {len(fitting)} of {len(train)} training cells.")
    for condition in fitting.labels:
        known = set(fitting.labels[condition].dropna())
        for name, cells in judged.items():
            if condition not in cells.labels:
                title = titles[name].capitalize() if name == "generated" else "T" + titles[name][1:]
                notes.append(f"{title} have no obs column '{condition}': their labels could not be judged.")
            elif strange := sorted(set(cells.labels[condition].dropna()) - known):
                notes.append(
                    f"WARNING: {titles[name]} have {len(strange)} labels of '{condition}' that the fitting cells do "
                    f"not have, such as '{strange[0]}'; cells with them count as not recognised."
                )
        if len(known) < 2:
            notes.append(f"'{condition}' has fewer than two labels: there is nothing to tell apart.")
    return notes

"""From the caller's files to the cells that are compared: read, checked, over one list of genes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from scldm.data.fingerprint import count_hashes, gene_weights
from scldm.errors import UserError, nearest_names
from scldm.evaluation.cells import Cells, has_layer, read_cells
from scldm.evaluation.draws import split, stratified_choice
from scldm.evaluation.labels import joint_labels
from scldm.seeds import numpy_rng

__all__ = ["MIN_CELLS", "MIN_CELLS_PER_GENE", "MIN_GROUPS", "GeneOverlap", "Material", "gather", "read_groups"]

MIN_CELLS = 10
MIN_CELLS_PER_GENE = 3
MAX_FITTING_CELLS = 20_000
# Below this share of the expressed genes the reader is told that the others are not judged.
MIN_JUDGED_GENES = 0.9
# With fewer, hardly any two halvings differ.
MIN_GROUPS = 6
# No two cells have the same counts of so many genes by chance.
MIN_GENES_TO_KNOW_A_CELL = 20


@dataclass(frozen=True)
class GeneOverlap:
    """How the genes of the files fit together.

    Attributes
    ----------
    n_real, n_generated, n_train
        Genes in each file (None: no training file); of several generators, in the file with the fewest.
    n_shared
        Genes that all files have.
    n_judged
        Shared genes that are seen in at least 3 of the fitting cells (in the profile ``published``, in any); all
        metrics are over these.
    """

    n_real: int
    n_generated: int
    n_train: int | None
    n_shared: int
    n_judged: int


@dataclass(frozen=True, eq=False)
class Material:
    """All cells of an evaluation, with the judged genes, and what a reader must know about them.

    Spaces, classifiers and baselines are fitted on `fitting`: real cells that are not among the held-out ones unless
    the profile wants it so. They are the training cells at `fitting_rows`, if there are any. On either side of a
    comparison there can be `n_cells`. Of the generators named in `paired`, every cell was made from the held-out cell
    at the same position. With `groups`, the number of every held-out cell's group, halves keep groups whole.
    """

    held_out: Cells
    generated: dict[str, Cells]
    paired: frozenset[str]
    groups: np.ndarray | None
    train: Cells | None
    fitting: Cells
    fitting_rows: np.ndarray | None
    genes: GeneOverlap
    n_cells: int
    notes: tuple[str, ...]


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
    paired: Collection[str] = (),
    group_by: str | None = None,
) -> Material:
    """Read and check the files, and choose the genes and the cells to fit on; see `evaluate`.

    With `halves` the reference is one half of the held-out cells, and fitting needs other cells. Otherwise all real
    cells are both, with all their genes. Raises ``UserError`` if a file cannot be judged or there are too few cells.
    """
    titles = {name: "the generated cells" if name == "generated" else f"the cells of '{name}'" for name in generated}
    _check_layer(layer, [real, *generated.values(), *([] if train is None else [train])])
    real_cells = read_cells(real, "the real cells", layer, conditions, optional=False)
    judged = {
        name: read_cells(adata, titles[name], layer, conditions, optional=True).spelled_like(real_cells)
        for name, adata in generated.items()
    }
    train_cells = None
    if train is not None:
        train_cells = read_cells(train, "the training cells", layer, conditions, optional=False)
        train_cells = train_cells.spelled_like(real_cells)

    for name in paired:
        _check_pairs(titles[name], judged[name], real_cells)
    held_out, fitting, rows = real_cells, real_cells, None
    groups = None if group_by is None else read_groups(real, group_by)
    if halves and train_cells is None:
        kept, fitted_on = _two_thirds(real_cells, groups, numpy_rng(seed, "split"))
        held_out, fitting = real_cells.take(kept), real_cells.take(fitted_on)
        judged |= {name: judged[name].take(kept) for name in paired}
        groups = None if groups is None else np.unique(groups[kept], return_inverse=True)[1]
    elif halves and train_cells is not None:
        rows = stratified_choice(joint_labels(train_cells.labels), MAX_FITTING_CELLS, numpy_rng(seed, "fitting"))
        fitting = train_cells.take(rows)
    files = {titles[name]: cells for name, cells in judged.items()}
    if train_cells is not None:
        files["the training cells"] = train_cells
    min_cells, source = MIN_CELLS_PER_GENE if halves else 1, "real" if rows is None else "training"
    genes, n_shared, on_genes = _choose_genes({"the real cells": real_cells, **files}, fitting, min_cells, source)
    overlap = GeneOverlap(
        n_real=len(real_cells.genes),
        n_generated=min(len(cells.genes) for cells in judged.values()),
        n_train=None if train_cells is None else len(train_cells.genes),
        n_shared=n_shared,
        n_judged=len(genes),
    )

    n_possible = min(max_cells, min(_least_half(held_out, groups), len(fitting)) if halves else len(held_out))
    n_cells, too_few = _n_compared(n_possible, files)
    notes = [*on_genes, *(_notes(judged, titles, fitting, train_cells) if halves else []), *too_few]
    if train_cells is not None:
        train_cells = train_cells.with_genes(genes)
    if train is not None and train_cells is not None:
        n_repeated = _n_repeated(real.obs_names, real_cells.with_genes(genes), train.obs_names, train_cells)
        if n_repeated:
            notes.append(f"WARNING: {n_repeated} of the {real.n_obs} held-out real cells are training cells as well.")
    return Material(
        held_out=held_out.with_genes(genes),
        generated={name: cells.with_genes(genes) for name, cells in judged.items()},
        paired=frozenset(paired),
        groups=groups,
        train=train_cells,
        fitting=fitting.with_genes(genes),
        fitting_rows=rows,
        genes=overlap,
        n_cells=n_cells,
        notes=tuple(notes),
    )


def read_groups(real: AnnData, column: str) -> np.ndarray:
    """Give every real cell the number of its group; raises ``UserError`` if it has none, or there are too few."""
    if column not in real.obs:
        raise UserError(f"The real cells have no obs column '{column}'; {nearest_names(column, real.obs.columns)}")
    codes, names = pd.factorize(real.obs[column].to_numpy())
    if (codes < 0).any():
        raise UserError(f"{int((codes < 0).sum())} of the real cells have no '{column}'; every cell needs a group")
    if len(names) < MIN_GROUPS:
        raise UserError(
            f"The real cells have {len(names)} groups of '{column}'; to halve them, at least {MIN_GROUPS} are needed"
        )
    return codes


def _two_thirds(cells: Cells, groups: np.ndarray | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Divide cells into those to compare and a third to fit on, which has no group in common with the others."""
    if groups is None:
        parts = split(joint_labels(cells.labels), 3, rng)
        return np.sort(np.concatenate(parts[:2])), parts[2]
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    to_fit = order[np.cumsum(sizes[order]) <= len(cells) / 3]
    in_third = np.isin(groups, to_fit if len(to_fit) else order[:1])
    return np.flatnonzero(~in_third), np.flatnonzero(in_third)


def _least_half(held_out: Cells, groups: np.ndarray | None) -> int:
    """Compute how many cells every half has: whole groups are uneven by the largest of them at most."""
    uneven = 0 if groups is None else int(np.bincount(groups).max())
    return (len(held_out) - uneven) // 2


def _check_pairs(title: str, cells: Cells, real: Cells) -> None:
    """Raise ``UserError`` unless there is one cell for every real cell, with the same labels."""
    if len(cells) != len(real):
        raise UserError(f"There are {len(cells)} of {title} for {len(real)} real cells; one was to be made from each")
    for column in cells.labels:
        if column in real.labels and not (cells.labels[column].to_numpy() == real.labels[column].to_numpy()).all():
            raise UserError(f"{title} have other labels of '{column}' than the real cells that they were made from")


def _check_layer(layer: str | None, files: Sequence[AnnData]) -> None:
    """Raise ``UserError`` if no file has the layer; one that lacks it has its counts in ``X``."""
    if layer is not None and not any(has_layer(adata, layer) for adata in files):
        names = sorted({str(name) for adata in files for name in adata.layers})
        help_ = nearest_names(layer, names) if names else "none of them has layers, their counts may be in X"
        raise UserError(f"No file has a layer '{layer}'; {help_}")


def _choose_genes(
    files: Mapping[str, Cells], fitting: Cells, min_cells: int, source: str
) -> tuple[pd.Index, int, list[str]]:
    """Choose the genes to judge: those in every file that at least `min_cells` of the fitting cells show.

    The source says which file the fitting cells are from. Gives the number of genes that all files have, too, and says
    so where genes that the fitting cells show are lost. Raises ``UserError`` if that is more than half of them.
    """
    seen = np.bincount(fitting.counts.indices[fitting.counts.data > 0], minlength=len(fitting.genes))
    candidates = fitting.genes[seen >= min_cells]
    if len(candidates) < 2:
        raise UserError(f"Fewer than two genes are seen in {min_cells} cells; there is nothing to compare")
    for name, cells in files.items():
        n_found = int(candidates.isin(cells.genes).sum())
        if 2 * n_found < len(candidates):
            short = name.removeprefix("the ")
            raise UserError(
                f"The {short} share only {n_found} of the {len(candidates)} expressed genes of the "
                f"{source} cells, at least half are needed; names there are like "
                f"'{candidates[0]}', names of the {short} like '{cells.genes[0]}'"
            )
    in_all = np.logical_and.reduce([fitting.genes.isin(cells.genes) for cells in files.values()])
    judged = fitting.genes[in_all & (seen >= min_cells)]
    if 2 * len(judged) < len(candidates):
        raise UserError(f"Only {len(judged)} of {len(candidates)} genes are in all files; at least half are needed")
    notes = []
    if len(judged) < MIN_JUDGED_GENES * len(candidates):
        lost = candidates[~candidates.isin(judged)]
        notes.append(
            f"WARNING: {len(lost)} of the {len(candidates)} expressed genes of the {source} cells, such as "
            f"'{lost[0]}', are not in all files and are not judged; are they named otherwise there?"
        )
    return judged, int(in_all.sum()), notes


def _n_compared(n_possible: int, files: Mapping[str, Cells]) -> tuple[int, list[str]]:
    """Choose how many cells to compare, and say which file allows no more."""
    sizes = {title: len(cells) for title, cells in files.items()}
    n_cells = min(n_possible, *sizes.values())
    if n_cells < MIN_CELLS:
        raise UserError(f"Only {n_cells} cells could be compared with as many others; at least {MIN_CELLS} are needed")
    if n_cells == n_possible:
        return n_cells, []
    smallest = min(sizes, key=lambda title: sizes[title])
    return n_cells, [
        f"Only {n_cells} cells are compared on either side because there are no more in {smallest}; the held-out cells "
        f"would allow {n_possible}."
    ]


def _notes(judged: Mapping[str, Cells], titles: Mapping[str, str], fitting: Cells, train: Cells | None) -> list[str]:
    """Say what a reader must know about how the numbers came about."""
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


def _n_repeated(real_names: pd.Index, real: Cells, train_names: pd.Index, train: Cells) -> int:
    """Count the held-out cells that are training cells as well: their counts are the same, gene by gene.

    A cell that shows few genes can be like another by chance: of such a one the name has to be the same, too.
    """
    own, others = (count_hashes(cells.counts, gene_weights(cells.genes)) for cells in (real, train))
    same_counts = np.isin(own, others)
    named = pd.MultiIndex.from_arrays([real_names.astype(str), own])
    same_cell = named.isin(pd.MultiIndex.from_arrays([train_names.astype(str), others]))
    n_expressed = np.diff(real.counts.indptr)
    return int((same_counts & (same_cell | (n_expressed >= MIN_GENES_TO_KNOW_A_CELL))).sum())

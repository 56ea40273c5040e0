"""Before anything is compared: common genes, disjoint parts of the real cells, equal numbers, seeded randomness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from scldm.errors import UserError
from scldm.evaluation.cells import Cells

__all__ = [
    "MIN_CELLS_PER_GENE",
    "GeneOverlap",
    "choose_genes",
    "generator",
    "repeated_cells",
    "split",
    "stratified_choice",
]

MIN_CELLS_PER_GENE = 3


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
        figures are over these.
    """

    n_real: int
    n_generated: int
    n_train: int | None
    n_shared: int
    n_judged: int


def choose_genes(
    real: Cells,
    generated: Mapping[str, Cells],
    train: Cells | None,
    fitting: Cells,
    min_cells: int = MIN_CELLS_PER_GENE,
) -> tuple[pd.Index, GeneOverlap]:
    """Choose the genes to judge: seen in enough fitting cells, and there in every file.

    Parameters
    ----------
    real, train
        The held-out and the training cells, if there are any.
    generated
        Cells of every generator, by what the file is called.
    fitting
        The cells that decide which genes are seen.
    min_cells
        In how many of them a gene must be seen.

    Raises
    ------
    UserError
        If less than half of the genes that are seen in the fitting cells are in every file.
    """
    seen = np.bincount(fitting.counts.indices[fitting.counts.data > 0], minlength=len(fitting.genes))
    candidates = fitting.genes[seen >= min_cells]
    if len(candidates) < 2:
        raise UserError(f"Fewer than two genes are seen in {min_cells} cells; there is nothing to compare")
    source = "real" if train is None or fitting is real else "training"
    files = {"the real cells": real, **generated, **({} if train is None else {"the training cells": train})}
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
    n_generated = min(len(cells.genes) for cells in generated.values())
    n_train = None if train is None else len(train.genes)
    return judged, GeneOverlap(len(real.genes), n_generated, n_train, int(in_all.sum()), len(judged))


def split(labels: pd.DataFrame, n_parts: int, rng: np.random.Generator) -> list[Int[np.ndarray, " part"]]:
    """Split cells into equal parts, each with its share of every label of the first column.

    Parameters
    ----------
    labels
        One row per cell; without columns the split is not stratified.
    n_parts
        How many parts; their sizes differ by one cell at most.
    rng
        Source of randomness.

    Returns
    -------
    The positions of the cells of each part, increasing.
    """
    order = _grouped_by_label(labels, rng)
    return [np.sort(order[part::n_parts]) for part in range(n_parts)]


def stratified_choice(labels: pd.DataFrame, n_cells: int, rng: np.random.Generator) -> Int[np.ndarray, " chosen"]:
    """Draw cells without replacement so that each label of the first column keeps its share, to within one cell.

    Parameters
    ----------
    labels
        One row per cell; without columns the draw is simply random.
    n_cells
        How many.
    rng
        Source of randomness.

    Returns
    -------
    The positions of the chosen cells, increasing; all of them if there are no more than that.
    """
    if len(labels) <= n_cells:
        return np.arange(len(labels))
    order = _grouped_by_label(labels, rng)
    # every (cells / n_cells)-th cell of the ordered ones, from a random start
    places = np.floor((np.arange(n_cells) + rng.random()) * (len(labels) / n_cells)).astype(np.int64)
    return np.sort(order[np.minimum(places, len(labels) - 1)])


def _grouped_by_label(labels: pd.DataFrame, rng: np.random.Generator) -> Int[np.ndarray, " cells"]:
    """Order cells at random, then by the label of the first column."""
    order = rng.permutation(len(labels))
    if len(labels.columns):
        stratum = pd.factorize(labels.iloc[:, 0], use_na_sentinel=False)[0]
        order = order[np.argsort(stratum[order], kind="stable")]
    return order


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Make the source of randomness for one purpose, so that no purpose changes the draws of another."""
    return np.random.default_rng([seed, *purpose.encode()])


def repeated_cells(real_names: pd.Index, real: Cells, train_names: pd.Index, train: Cells) -> int:
    """Count the held-out cells that seem to be training cells as well: the same name and the same depth.

    Names such as "0", "1", ... say nothing by themselves, so the answer is zero when most cells of one name differ.
    """
    if not (real_names.is_unique and train_names.is_unique):
        return 0
    position = train_names.get_indexer(real_names)
    named = np.flatnonzero(position >= 0)
    n_same = int((real.library_size[named] == train.library_size[position[named]]).sum())
    return n_same if 2 * n_same > len(named) else 0

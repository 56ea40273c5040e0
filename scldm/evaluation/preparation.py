"""Before anything is compared: common genes, disjoint parts of the real cells, equal numbers, seeded randomness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from scldm.errors import UserError
from scldm.evaluation.cells import Cells

__all__ = ["MIN_CELLS_PER_GENE", "GeneOverlap", "choose_genes", "generator", "repeated_cells", "split", "subsample"]

MIN_CELLS_PER_GENE = 3


@dataclass(frozen=True)
class GeneOverlap:
    """How the genes of the files fit together.

    Attributes
    ----------
    n_real, n_generated, n_train
        Genes in each file (None: no training file).
    n_shared
        Genes that all files have.
    n_judged
        Shared genes that are seen in at least 3 of the fitting cells; all figures are over these.
    """

    n_real: int
    n_generated: int
    n_train: int | None
    n_shared: int
    n_judged: int


def choose_genes(real: Cells, generated: Cells, train: Cells | None, fitting: Cells) -> tuple[pd.Index, GeneOverlap]:
    """Choose the genes to judge: seen in enough fitting cells, and there in every file.

    Raises
    ------
    UserError
        If less than half of the genes that are seen in the fitting cells are in every file.
    """
    seen = np.bincount(fitting.counts.indices[fitting.counts.data > 0], minlength=len(fitting.genes))
    candidates = fitting.genes[seen >= MIN_CELLS_PER_GENE]
    if len(candidates) < 2:
        raise UserError(f"Fewer than two genes are seen in {MIN_CELLS_PER_GENE} cells; there is nothing to compare")
    for cells, name in ((real, "real"), (generated, "generated")):
        n_found = int(candidates.isin(cells.genes).sum())
        if 2 * n_found < len(candidates):
            raise UserError(
                f"The {name} cells share only {n_found} of the {len(candidates)} expressed genes of the "
                f"{'real' if train is None else 'training'} cells, at least half are needed; names there are like "
                f"'{candidates[0]}', names of the {name} cells like '{cells.genes[0]}'"
            )
    in_all = fitting.genes.isin(real.genes) & fitting.genes.isin(generated.genes)
    judged = fitting.genes[in_all & (seen >= MIN_CELLS_PER_GENE)]
    if 2 * len(judged) < len(candidates):
        raise UserError(f"Only {len(judged)} of {len(candidates)} genes are in all files; at least half are needed")
    n_train = None if train is None else len(train.genes)
    return judged, GeneOverlap(len(real.genes), len(generated.genes), n_train, int(in_all.sum()), len(judged))


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
    order = rng.permutation(len(labels))
    if len(labels.columns):
        stratum = pd.factorize(labels.iloc[:, 0], use_na_sentinel=False)[0]
        order = order[np.argsort(stratum[order], kind="stable")]
    return [np.sort(order[part::n_parts]) for part in range(n_parts)]


def subsample(cells: Cells, n_cells: int, rng: np.random.Generator) -> Cells:
    """Draw cells without replacement; all of them, in their order, if there are no more than that."""
    if len(cells) <= n_cells:
        return cells
    return cells.take(np.sort(rng.choice(len(cells), n_cells, replace=False)))


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

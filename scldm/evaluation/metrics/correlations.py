"""Metrics of genes together: their correlations, over all cells and within labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from scldm.evaluation.compare import N_CORRELATED_GENES, Comparison, Masks, Rows
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, MIN_SYSTEM_CELLS
from scldm.evaluation.metrics.pearson import pair_correlations, pearson_rows
from scldm.evaluation.metrics.registry import Limit, lost, metric

__all__ = ["chosen_of"]

# where two halves of the real cells agree less than this, a correlation is mostly sampling noise
_LEAST_AGREEMENT = 0.5


@metric(
    "gene_gene_correlation",
    group="genes",
    direction="higher",
    display_name="Gene-gene correlation",
    description="Pearson correlation between the off-diagonal entries of both sides' gene-gene correlation matrices "
    f"(log1p CP10K, the {N_CORRELATED_GENES} genes with the highest mean in the fitting cells).",
    values="-1 to 1",
    degenerate="0 for genes that are independent of each other; a gene that never varies correlates with none.",
    limits=Limit(
        "correlations",
        lost(0.03, 0.15),
        "Genes do not go together as in real cells: gene-gene correlations agree to {value:.2f} (real cells: "
        "{ceiling:.2f}).",
        "agreement",
        least_ceiling=_LEAST_AGREEMENT,
    ),
    max_permutations=39,
)
def _gene_gene_correlation(c: Comparison) -> Rows:
    return pearson_rows(_pairs(c, c.system), _pairs(c, c.reference))


@metric(
    "gene_gene_correlation_within",
    group="genes",
    direction="higher",
    display_name="Gene-gene correlation within",
    description="As gene_gene_correlation, but within labels of the first condition: of deviations from the mean of "
    f"the label, over labels with at least {MIN_CELLS_PER_LABEL} expected cells. Those of which the system has "
    f"fewer than {MIN_SYSTEM_CELLS} cells are left out, and the correlation is multiplied by the share of reference "
    "cells left.",
    values="-1 to 1",
    degenerate="0 where every frequent label is missed; not computed without labels.",
    # the ceiling itself is noisy, so more may be lost before it is said
    limits=Limit(
        "correlations",
        lost(0.10, 0.50),
        "Within a label genes do not go together as in real cells: correlations agree to {value:.2f} (real cells: "
        "{ceiling:.2f}).",
        "within labels",
        least_ceiling=_LEAST_AGREEMENT,
    ),
    max_permutations=39,
)
def _gene_gene_correlation_within(c: Comparison) -> Rows | None:
    conditions = c.held_out.cells.labels.columns
    if not len(conditions):
        return None
    column, judged = c.pool.labels(conditions[0]), c.judged_labels(conditions[0])
    if column is None or not judged:
        return None
    groups = np.array([judged.index(label) if label in judged else -1 for label in column])
    met = np.stack([chosen_of(groups == i, c.system) >= MIN_SYSTEM_CELLS for i in range(len(judged))], axis=1)
    sizes = np.stack([chosen_of(groups == i, c.reference) for i in range(len(judged))], axis=1)
    # a label that the system misses is left out of both sides, in the draws where it is missed
    in_both = np.hstack([met, np.zeros((c.n_rows, 1), dtype=bool)])[:, groups]
    system, reference = (_pairs(c, chosen & in_both, groups) for chosen in (c.system, c.reference))
    left = (sizes * met).sum(axis=1) / np.maximum(sizes.sum(axis=1), 1)
    return left * pearson_rows(system, reference)


def chosen_of(some: Bool[np.ndarray, " cells"], chosen: Masks) -> Int[np.ndarray, " rows"]:
    """Count the chosen cells among some."""
    return chosen[:, some].sum(axis=1)


def _pairs(
    c: Comparison, chosen: Masks, groups: Int[np.ndarray, " cells"] | None = None
) -> Float[np.ndarray, "rows pairs"]:
    """Compute gene-gene correlations of the chosen cells, in every draw."""
    genes = c.fitted.correlated_genes
    values = c.pool.once("correlated genes", lambda: c.pool.cells.log1p_cp10k[:, genes].toarray())
    return pair_correlations(values, chosen, groups)

"""Metrics of genes together: their correlations, over all cells and within labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from scldm.evaluation.bootstrap import Estimate
from scldm.evaluation.compare import N_CORRELATED_GENES, Comparison, Side
from scldm.evaluation.labels import MIN_CELLS_PER_LABEL, MIN_SYSTEM_CELLS, frequent_labels
from scldm.evaluation.metrics.pearson import pair_correlations, pearson_rows
from scldm.evaluation.metrics.registry import Limit, lost, metric

__all__: list[str] = []

# where two halves of the real cells agree less than this, a correlation is mostly sampling noise
_LEAST_AGREEMENT = 0.5


@metric(
    "gene_gene_correlation",
    group="genes",
    direction="higher",
    display_name="Gene-gene correlation",
    description="Pearson correlation between the off-diagonal entries of both sides' gene-gene correlation matrices "
    f"(log1p CP10K, the {N_CORRELATED_GENES} genes with the highest mean in the fitting cells).",
    limits=Limit(
        "correlations",
        lost(0.03, 0.15),
        "Genes do not go together as in real cells: gene-gene correlations agree to {value:.2f} (real cells: "
        "{ceiling:.2f}).",
        "agreement",
        least_ceiling=_LEAST_AGREEMENT,
    ),
)
def _gene_gene_correlation(c: Comparison) -> Estimate | None:
    genes = c.fitted.correlated_genes
    return Estimate.of(pearson_rows(_pairs(c.system, genes), _pairs(c.reference, genes)))


@metric(
    "gene_gene_correlation_within",
    group="genes",
    direction="higher",
    display_name="Gene-gene correlation within",
    description="As gene_gene_correlation, but within labels of the first condition: of deviations from the mean of "
    f"the label, over labels with at least {MIN_CELLS_PER_LABEL} reference cells. Those of which the system has fewer "
    f"than {MIN_SYSTEM_CELLS} cells are left out, and the correlation is multiplied by the share of reference cells "
    "left.",
    # the ceiling itself is noisy, so more may be lost before it is said
    limits=Limit(
        "correlations",
        lost(0.10, 0.50),
        "Within a label genes do not go together as in real cells: correlations agree to {value:.2f} (real cells: "
        "{ceiling:.2f}).",
        "within labels",
        least_ceiling=_LEAST_AGREEMENT,
    ),
)
def _gene_gene_correlation_within(c: Comparison) -> Estimate | None:
    conditions = c.reference.cells.labels.columns
    if not len(conditions):
        return None
    system, reference = c.system.labels(conditions[0]), c.reference.labels(conditions[0])
    if system is None or reference is None or not (judged := frequent_labels(reference)):
        return None
    labels = [label for label in judged if label in frequent_labels(system, MIN_SYSTEM_CELLS)]
    if not labels:
        return Estimate.of(np.zeros(1 + len(c.reference.weights)))
    rows = []
    for side, column in ((c.system, system), (c.reference, reference)):
        groups = np.array([labels.index(label) if label in labels else -1 for label in column])
        chosen = np.flatnonzero(groups >= 0)
        rows.append(_pairs(side.take(chosen), c.fitted.correlated_genes, groups[chosen]))
    left = np.isin(reference, labels).sum() / np.isin(reference, judged).sum()
    return Estimate.of(left * pearson_rows(*rows))


def _pairs(
    side: Side, genes: Int[np.ndarray, " chosen"], groups: Int[np.ndarray, " cells"] | None = None
) -> Float[np.ndarray, "rows pairs"]:
    """Compute gene-gene correlations of a side, for the cells as they are and for every resample."""
    return pair_correlations(side.cells.log1p_cp10k[:, genes].toarray(), side.rows, groups)

"""The recipe behind the tables of published generators, so that numbers can be set beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scldm.evaluation import distances
from scldm.evaluation.cells import Cells
from scldm.evaluation.judge import bring, fit_judge
from scldm.evaluation.preparation import generator, stratified_choice
from scldm.evaluation.registry import FIGURES, PRIMARY_SPACE, Comparison, Figure, Judge
from scldm.evaluation.resampling import Estimate
from scldm.evaluation.scoring import Split, score
from scldm.evaluation.space import FeatureSpace
from scldm.evaluation.values import FigureValues

__all__ = ["MAX_CELLS", "NOTE", "published_figures", "score_published"]

MAX_CELLS = 5000
NOTE = (
    "Profile 'published', the recipe of published tables: 30 principal components of log1p CP10K, fitted on all real "
    f"cells; at most {MAX_CELLS:,} of them, not divided in halves, are the reference. There is no ceiling: a part of "
    "every distance comes from the limited number of cells, so compare with numbers at equal n only."
)


def _mmd2_published(c: Comparison, space: str) -> Estimate:
    system, reference = c.system.features[space], c.reference.features[space]
    return Estimate(distances.mmd2(system, reference, distances.PUBLISHED_BANDWIDTHS, unbiased=False))


def published_figures() -> list[Figure]:
    """List the figures of published tables: W2, MMD2 as they compute it, Frechet distance and 1-NN accuracy."""
    mmd = Figure(
        "mmd2_published",
        "distances",
        "lower",
        "Squared maximum mean discrepancy as in published comparisons: biased, sum of Gaussian kernels with standard "
        "deviations 1, 2, 4, 8 and 16 (depends on the scale of the data and the number of cells).",
        _mmd2_published,
        scope="space",
    )
    return [
        FIGURES["wasserstein2"],
        mmd,
        FIGURES["frechet_distance"],
        FIGURES["nearest_neighbour_accuracy"],
    ]


def score_published(
    real: Cells, systems: Mapping[str, Cells], n_cells: int, seed: int, n_resamples: int, conditions: Sequence[str]
) -> tuple[tuple[FigureValues, ...], Judge, Split]:
    """Compute the figures of published tables.

    Parameters
    ----------
    real
        All real cells, with the judged genes.
    systems
        All cells of every system, with the same genes.
    n_cells
        On either side.
    seed, n_resamples
        Of the draws of cells, and of the bootstrap.
    conditions
        The judged obs columns, for the pictures.

    Returns
    -------
    The figures, the judge, and the compared cells.
    """
    spaces = {PRIMARY_SPACE: FeatureSpace.fit(real.log1p_cp10k, seed=seed)}
    all_real = bring(real, spaces, "the real cells", seed, n_resamples)
    everyone = {name: bring(cells, spaces, name, seed, n_resamples) for name, cells in systems.items()}
    judge = fit_judge(spaces, all_real, everyone.get("memoriser"), conditions)
    sides = {
        name: side.take(stratified_choice(side.cells.labels, n_cells, generator(seed, name)))
        for name, side in {"reference": all_real, **everyone}.items()
    }
    one = Split(sides.pop("reference"), sides)
    return score(published_figures(), judge, [one], all_real, everyone, conditions), judge, one

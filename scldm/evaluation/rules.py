"""The limits beyond which a figure of merit is held against a generator, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RULES", "TOPICS", "Rule"]

# What is said of a topic in which nothing was found.
TOPICS = {
    "memorisation": "No sign of memorised training cells",
    "modes": "The variety of real cells is there",
    "distances": "Cells lie where real cells lie",
    "labels": "Labels are met as real cells meet them",
    "correlations": "Genes go together as in real cells",
    "genes": "Expression of genes and markers is as in real cells",
    "zeros": "Zeros are as frequent as in real cells",
    "depth": "Sequencing depth is that of real cells",
}

# Where two halves of the real cells agree less than this, a figure is mostly sampling noise.
LEAST_AGREEMENT = 0.5


@dataclass(frozen=True)
class Rule:
    """When a figure of merit is a warning, and when a problem.

    Attributes
    ----------
    figure
        Its name, without condition.
    topic
        One of `TOPICS`.
    loss
        How much worse a value is than the ceiling's, from both.
    warning, problem
        Limits of the loss.
    sentence
        The verdict, with ``{value}``, ``{ceiling}``, ``{loss}`` and ``{condition}`` to fill in.
    short
        What to call the figure where nothing is wrong; empty where it goes without saying.
    per_condition
        Whether there is one value for every condition.
    least_ceiling
        With a lower value of the ceiling the rule is not applied.
    """

    figure: str
    topic: str
    loss: Callable[[float, float], float]
    warning: float
    problem: float
    sentence: str
    short: str = ""
    per_condition: bool = False
    least_ceiling: float = -math.inf


def _more(value: float, ceiling: float) -> float:
    """Compute how far a value is above the ceiling's."""
    return value - ceiling


def _less(value: float, ceiling: float) -> float:
    """Compute how far a value is below the ceiling's."""
    return ceiling - value


def _times(value: float, ceiling: float) -> float:
    """Compute how many times the ceiling's a value is."""
    return value / ceiling if ceiling > 0 else math.inf if value > 0 else 1.0


def _lost(value: float, ceiling: float) -> float:
    """Compute what share of the ceiling's value is lost."""
    return 1.0 - value / ceiling if ceiling > 0 else 0.0


def _fold(value: float, ceiling: float) -> float:
    """Compute by what factor a value differs from the ceiling's, up or down."""
    return max(_times(value, ceiling), _times(ceiling, value))


def _above_half(value: float, ceiling: float) -> float:
    """Compute how far a value is above what chance gives, one half, and above the ceiling's."""
    return value - max(0.5, ceiling)


RULES = (
    # Memorisation. Of real cells about 1 % are near duplicates, and none an exact one unless depth is very low.
    Rule(
        "exact_duplicates",
        "memorisation",
        _more,
        0.0,
        0.01,
        "{value:.1%} of the cells are exact copies of training cells (of real held-out cells: {ceiling:.1%}).",
        "exact copies",
    ),
    Rule(
        "near_duplicates",
        "memorisation",
        _more,
        0.02,
        0.10,
        "{value:.1%} of the cells lie closer to a training cell than all but 1 % of real cells do (of held-out cells: "
        "{ceiling:.1%}).",
        "near copies",
    ),
    Rule(
        "nearest_training_ratio",
        "memorisation",
        _lost,
        0.05,
        0.20,
        "Cells lie too close to training cells: at {value:.2f} times the distance of real held-out cells (ceiling: "
        "{ceiling:.2f}); 0 means copies.",
        "distance to training cells",
    ),
    # An attacker gains .5 n / N by n copies out of N training cells: a tenth of them passes the first limit.
    Rule(
        "membership_auroc",
        "memorisation",
        _above_half,
        0.05,
        0.10,
        "The cells give away what was trained on: from them alone a training cell is told from a held-out cell with an "
        "AUROC of {value:.2f} (0.5 is chance; real cells: {ceiling:.2f}).",
        "membership AUROC",
    ),
    # Fewer than .5 as real cells among each other: every generated cell has its real twin.
    Rule(
        "nearest_neighbour_accuracy",
        "memorisation",
        _less,
        0.10,
        0.20,
        "The nearest neighbours of cells are too often on the other side (1-NN accuracy {value:.2f}, real against real "
        "{ceiling:.2f}): they look like copies of the held-out cells; was the generator trained on them?",
    ),
    # Variety. A tenth of the real cells without a generated one near is a small population, or the fringe of all.
    Rule(
        "recall",
        "modes",
        _less,
        0.10,
        0.25,
        "Part of the variety of real cells is missing: only {value:.0%} of them lie where generated cells do (real "
        "cells among each other: {ceiling:.0%}).",
        "recall",
    ),
    Rule(
        "coverage",
        "modes",
        _less,
        0.10,
        0.25,
        "Only {value:.0%} of the real cells have a generated cell near (real cells among each other: {ceiling:.0%}): "
        "some kinds of cells are missing or too rare.",
        "coverage",
    ),
    # Distances. Fréchet and Wasserstein distance of real cells are finite-sample bias: the limits are factors of that.
    Rule(
        "frechet_distance",
        "distances",
        _times,
        1.3,
        3.0,
        "The Fréchet distance to real cells is {value:.3g}, {loss:.1f} times that between real cells ({ceiling:.3g}).",
        "Fréchet distance",
    ),
    Rule(
        "wasserstein2",
        "distances",
        _times,
        1.05,
        1.25,
        "The Wasserstein distance to real cells is {value:.3g}, {loss:.2f} times that between real cells "
        "({ceiling:.3g}).",
    ),
    Rule(
        "nearest_neighbour_accuracy",
        "distances",
        _more,
        0.05,
        0.20,
        "Cells can be told from real ones by their nearest neighbour in {value:.0%} of cases (real cells from each "
        "other: {ceiling:.0%}).",
        "1-NN accuracy",
    ),
    Rule(
        "classifier_auroc",
        "distances",
        _more,
        0.10,
        0.30,
        "A classifier tells cells from real ones with an AUROC of {value:.2f} (real cells from each other: "
        "{ceiling:.2f}).",
        "classifier AUROC",
    ),
    Rule(
        "precision",
        "distances",
        _less,
        0.10,
        0.25,
        "Only {value:.0%} of the cells lie where real cells do (real cells among each other: {ceiling:.0%}).",
        "precision",
    ),
    Rule(
        "nearest_training_ratio",
        "distances",
        lambda value, ceiling: _times(value, ceiling) - 1.0,
        0.10,
        0.50,
        "Cells lie farther from training cells than real ones do: at {value:.2f} times the distance of held-out cells "
        "(ceiling: {ceiling:.2f}).",
    ),
    # Labels. More than real is a failure as well: types that do not overlap as the real ones do.
    Rule(
        "label_agreement",
        "labels",
        _more,
        0.03,
        0.10,
        "The labels of {condition} are told apart too easily: {value:.0%} of the cells are recognised, of real cells "
        "{ceiling:.0%}; real types overlap more.",
        "agreement",
        per_condition=True,
    ),
    Rule(
        "label_agreement",
        "labels",
        _less,
        0.03,
        0.10,
        "Cells do not look like their label of {condition}: {value:.0%} are recognised, of real cells {ceiling:.0%}.",
        per_condition=True,
    ),
    # Correlations. Within labels the ceiling itself is noisy, so more may be lost before it is said.
    Rule(
        "gene_gene_correlation",
        "correlations",
        _lost,
        0.03,
        0.15,
        "Genes do not go together as in real cells: gene-gene correlations agree to {value:.2f} (real cells: "
        "{ceiling:.2f}).",
        "agreement",
        least_ceiling=LEAST_AGREEMENT,
    ),
    Rule(
        "gene_gene_correlation_within",
        "correlations",
        _lost,
        0.10,
        0.50,
        "Within a label genes do not go together as in real cells: correlations agree to {value:.2f} (real cells: "
        "{ceiling:.2f}).",
        "within labels",
        least_ceiling=LEAST_AGREEMENT,
    ),
    # Genes and markers.
    Rule(
        "gene_mean_mae",
        "genes",
        _times,
        1.5,
        3.0,
        "Mean expression of genes is off by {value:.2g} log1p CP10K, {loss:.1f} times as much as between real cells.",
        "error of means",
    ),
    Rule(
        "dispersion_trend",
        "genes",
        _more,
        0.10,
        0.30,
        "Counts vary around their mean too much or too little: dispersions are off by {value:.2f} in log10 (real "
        "cells: {ceiling:.2f}).",
    ),
    Rule(
        "marker_fold_change_correlation",
        "genes",
        _lost,
        0.10,
        0.50,
        "Markers of {condition} are not recovered: fold changes correlate with the real ones at {value:.2f} (real "
        "cells: {ceiling:.2f}).",
        "fold changes",
        per_condition=True,
        least_ceiling=LEAST_AGREEMENT,
    ),
    # Zeros.
    Rule(
        "zero_fraction_mae",
        "zeros",
        _times,
        1.5,
        3.0,
        "The shares of zeros of genes are off by {value:.2g}, {loss:.1f} times as much as between real cells.",
        "error of zero shares",
    ),
    Rule(
        "zero_fraction_curve",
        "zeros",
        _more,
        0.02,
        0.10,
        "Genes have too many or too few zeros for their mean: the curve is off by {value:.2g} (real cells: "
        "{ceiling:.2g}).",
    ),
    # Depth.
    Rule(
        "depth_ratio",
        "depth",
        _fold,
        1.10,
        1.50,
        "Cells are not as deep as real ones: the median library size is {value:.2f} times the real one.",
        "ratio of medians",
    ),
    Rule(
        "depth_ks",
        "depth",
        _more,
        0.10,
        0.40,
        "Library sizes are not distributed as in real cells (Kolmogorov-Smirnov {value:.2f}, real: {ceiling:.2f}).",
        "Kolmogorov-Smirnov",
    ),
)

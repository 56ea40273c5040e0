"""Generators to beat, fitted on the training cells; a new one is a subclass of `Baseline` and a line here."""

from scldm.evaluation.baselines.base import Baseline
from scldm.evaluation.baselines.independent_nb import IndependentNegativeBinomial
from scldm.evaluation.baselines.pca_gaussian import PCAGaussian

__all__ = ["BASELINES", "Baseline", "IndependentNegativeBinomial", "PCAGaussian"]

#: Those that need nothing but the training cells and so are in every evaluation, in the order of the table.
BASELINES: dict[str, type[Baseline]] = {
    "independent_nb": IndependentNegativeBinomial,
    "pca_gaussian": PCAGaussian,
}

"""Which likelihoods there are: a new one is a file of this folder and an entry here.

Their names are the values that ``VAEConfig.likelihood`` may take.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scldm.vae.counts.base import Likelihood

__all__ = ["LIKELIHOODS", "NamedLikelihood"]


@dataclass(frozen=True)
class NamedLikelihood:
    """A likelihood that is imported when it is needed, so that reading a configuration loads no torch.

    Attributes
    ----------
    reference
        ``"module:class"``.
    has_dispersion
        Whether the variance has parameters of its own, which may depend on a category.
    """

    reference: str
    has_dispersion: bool = False

    def load(self) -> type[Likelihood]:
        """Import the class."""
        found: type[Likelihood] = pkgutil.resolve_name(self.reference)
        return found


_ZINB = "scldm.vae.counts.zero_inflated_negative_binomial"

LIKELIHOODS: dict[str, NamedLikelihood] = {
    "negative_binomial": NamedLikelihood("scldm.vae.counts.negative_binomial:NegativeBinomial", has_dispersion=True),
    "poisson": NamedLikelihood("scldm.vae.counts.poisson:Poisson"),
    "zero_inflated_negative_binomial": NamedLikelihood(f"{_ZINB}:ZeroInflatedNegativeBinomial", has_dispersion=True),
    "zero_inflated_negative_binomial_by_gene": NamedLikelihood(
        f"{_ZINB}:ZeroInflatedNegativeBinomialByGene", has_dispersion=True
    ),
}

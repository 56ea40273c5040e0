"""Which likelihoods there are: a new one is a file of this folder and a line here.

Their names are the values that ``VAEConfig.likelihood`` may take.
"""

from __future__ import annotations

__all__ = ["LIKELIHOODS"]

#: Name, and the class as "module:class" for :func:`pkgutil.resolve_name`: reading a configuration loads no torch.
LIKELIHOODS: dict[str, str] = {
    "negative_binomial": "scldm.vae.counts.negative_binomial:NegativeBinomial",
    "poisson": "scldm.vae.counts.poisson:Poisson",
    "zero_inflated_negative_binomial": (
        "scldm.vae.counts.zero_inflated_negative_binomial:ZeroInflatedNegativeBinomial"
    ),
    "zero_inflated_negative_binomial_by_gene": (
        "scldm.vae.counts.zero_inflated_negative_binomial:ZeroInflatedNegativeBinomialByGene"
    ),
}

"""Sizes and choices of the autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scldm.errors import nearest_names, require
from scldm.sections import check_numbers
from scldm.vae.counts.registry import LIKELIHOODS
from scldm.vae.layouts import LAYOUTS

__all__ = ["VAEConfig"]

if TYPE_CHECKING:
    LayoutName = str
    LikelihoodName = str
else:
    LayoutName = Literal[tuple(LAYOUTS)]
    LikelihoodName = Literal[tuple(LIKELIHOODS)]


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The autoencoder that turns a cell into latent tokens and back into counts."""

    layout: LayoutName = "wide"
    """wide: capacity in per-gene tables. published: the layout of Palla et al. 2025."""
    n_latents: int = 8
    """Latent tokens per cell."""
    latent_channels: int = 8
    """Channels per latent token."""
    width: int = 64
    """Channels of a token inside the self-attention blocks (and of the gene embedding in the published layout)."""
    n_layers: int = 1
    """Self-attention blocks in the encoder, and as many in the decoder."""
    n_heads: int = 4
    """Heads of a self-attention block."""
    n_cross_heads: int = 4
    """Heads of the cross-attention that pools genes and un-pools latents."""
    table_width: int = 256
    """Channels of the per-gene tables (wide layout only)."""
    gene_tokens: Literal["film", "log1p", "projconcat"] = "film"
    """How a count enters its gene's token (published layout only); film alone lets the latent see count magnitudes."""
    mask_padding: bool = True
    """Keep padding out of the attention (published layout only); False reproduces the published implementation."""
    bottleneck: Literal["gaussian", "layernorm"] = "gaussian"
    """gaussian: a posterior q(Z|x) with a KL term. layernorm: the published deterministic bottleneck."""
    kl_weight: float = 0.01
    """Weight of the KL term, per nat."""
    dropout: float = 0.1
    """Dropout on the pooled cell representation (wide layout only)."""
    thinning: float = 0.0
    """Largest share of the counts of a training cell that is hidden from the encoder, between 0 and this for every cell
    (wide layout only): what it sees is a shallower cell, and the cell that is to be decoded has noise of its own. 0.7
    helps some small data sets and harms others (benchmarks/RESULTS.md)."""
    attribute_dropout: float = 0.15
    """Share of training cells of which the encoder is not told an attribute (wide layout only); 1 hides them all."""
    joint_attribute_dropout: float = 0.1
    """Share of training cells of which the encoder is told no attribute at all, as in encoding (wide layout only)."""
    read_out_std: float = 0.011
    """Standard deviation of the Gaussian prior on the weights with which a gene is read out (wide layout only)."""
    likelihood: LikelihoodName = "negative_binomial"
    """Distribution of the counts. zero_inflated: with more zeros than the negative binomial has, as many as are decoded
    for every cell and gene, or learnt for every gene alone (by_gene)."""
    dispersion_by: str | None = None
    """Categorical attribute that the inverse dispersion may depend on, besides the gene."""

    def __post_init__(self) -> None:
        check_numbers(self, "vae.")
        for name, choices in (("layout", LAYOUTS), ("likelihood", LIKELIHOODS)):
            value = getattr(self, name)
            require(value in choices, f"vae.{name} is '{value}'; {nearest_names(value, choices)}.")
        for name in ("n_latents", "latent_channels", "width", "n_heads", "n_cross_heads", "table_width"):
            require(getattr(self, name) >= 1, f"vae.{name} is {getattr(self, name)}; it must be at least 1.")
        require(self.n_layers >= 0, f"vae.n_layers is {self.n_layers}; it must not be negative.")
        require(
            self.width % self.n_heads == 0,
            f"vae.width is {self.width}; it must be a multiple of vae.n_heads ({self.n_heads}).",
        )
        cross = self.n_latents * self.n_cross_heads if self.layout == "wide" else self.n_cross_heads
        channels = self.table_width if self.layout == "wide" else self.width
        name, unit = (
            ("table_width", "n_latents * n_cross_heads") if self.layout == "wide" else ("width", "n_cross_heads")
        )
        require(channels % cross == 0, f"vae.{name} is {channels}; it must be a multiple of vae.{unit} ({cross}).")
        require(self.kl_weight >= 0, f"vae.kl_weight is {self.kl_weight}; it must not be negative.")
        for name in ("attribute_dropout", "joint_attribute_dropout"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"vae.{name} is {value}; it must be between 0 and 1.")
        require(self.read_out_std > 0, f"vae.read_out_std is {self.read_out_std}; it must be positive.")
        require(0 <= self.thinning < 1, f"vae.thinning is {self.thinning}; it must be at least 0 and below 1.")
        require(0 <= self.dropout < 1, f"vae.dropout is {self.dropout}; it must be at least 0 and below 1.")
        # A setting without effect is a misunderstanding.
        require(
            self.layout == "published" or (self.gene_tokens == "film" and self.mask_padding),
            "vae.gene_tokens and vae.mask_padding belong to the published layout; set vae.layout to published.",
        )
        dispersed = [name for name, likelihood in LIKELIHOODS.items() if likelihood.has_dispersion]
        require(
            self.dispersion_by is None or self.likelihood in dispersed,
            f"vae.dispersion_by has no effect on {self.likelihood} counts; set vae.likelihood to one of "
            f"{', '.join(dispersed)}.",
        )

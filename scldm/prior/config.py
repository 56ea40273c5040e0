"""Sizes and choices of the prior."""

from __future__ import annotations

from dataclasses import dataclass

from scldm.errors import nearest_names, require
from scldm.prior.registry import TIME_SAMPLERS, TimeDistribution
from scldm.sections import check_numbers

__all__ = ["PriorConfig"]


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """The diffusion transformer that generates latents and depth."""

    width: int = 128
    """Channels of a token."""
    n_layers: int = 4
    """Transformer blocks."""
    n_heads: int = 4
    """Attention heads."""
    dropout: float = 0.0
    """Dropout inside the blocks."""
    attribute_dropout: float = 0.15
    """Probability, for each attribute by itself, of being hidden from a training cell."""
    joint_attribute_dropout: float = 0.1
    """Probability that all attributes of a training cell are hidden together: guidance starts from such cells."""
    given_depth_fraction: float = 0.25
    """Share of training cells whose depth is given instead of generated, so that a request may fix it."""
    time_distribution: TimeDistribution = "uniform"
    """How training times are drawn: uniform, or logit_normal, which favours the middle of the path."""
    time_scale: float = 1000.0
    """Factor on time before its sinusoidal features; 1 reproduces the published implementation."""
    few_step_evaluations: tuple[int, ...] = (4,)
    """Numbers of network evaluations for which a few-step solver is fitted after training; none with an empty list."""

    def __post_init__(self) -> None:
        check_numbers(self, "prior.")
        value = self.time_distribution
        require(value in TIME_SAMPLERS, f"prior.time_distribution is '{value}'; {nearest_names(value, TIME_SAMPLERS)}.")
        for name in ("width", "n_layers", "n_heads"):
            require(getattr(self, name) >= 1, f"prior.{name} is {getattr(self, name)}; it must be at least 1.")
        require(
            self.width % self.n_heads == 0 and self.width % 2 == 0,
            f"prior.width is {self.width}; it must be even and a multiple of prior.n_heads ({self.n_heads}).",
        )
        for name in ("dropout", "attribute_dropout", "joint_attribute_dropout", "given_depth_fraction"):
            value = getattr(self, name)
            require(0 <= value < 1, f"prior.{name} is {value}; it must be at least 0 and below 1.")
        require(
            all(n >= 1 for n in self.few_step_evaluations)
            and len(set(self.few_step_evaluations)) == len(self.few_step_evaluations),
            f"prior.few_step_evaluations is {list(self.few_step_evaluations)}; they must be at least 1, and differ.",
        )
        require(self.time_scale > 0, f"prior.time_scale is {self.time_scale}; it must be positive.")

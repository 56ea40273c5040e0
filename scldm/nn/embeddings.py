"""Embeddings of what conditions the prior: time, attributes, and the position of a latent token."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

__all__ = [
    "AttributeEmbedding",
    "FourierFeatures",
    "SinusoidalTime",
    "TimeEmbedding",
    "sinusoidal_positions",
]


def sinusoidal_positions(n_positions: int, width: int) -> Float[Tensor, "positions width"]:
    """Tabulate fixed sine and cosine position vectors (Vaswani et al., 2017), sines in the first half of the channels.

    Computed in float64 on the CPU, so that every device starts from the same numbers.
    """
    if width % 2:
        raise ValueError(f"sine and cosine positions need an even width, got {width}")
    frequencies = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.arange(n_positions, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class SinusoidalTime(nn.Module):
    """Cosine and sine features of interpolation time.

    The periods run from 2 pi to 2 pi * 10,000, made for step numbers up to 1,000, so time in [0, 1] is scaled
    first: unscaled, nearly all features would be constant over the whole path.

    Parameters
    ----------
    n_features
        Number of features, even.
    scale
        What time is multiplied by; 1.0 is what the published model does.
    """

    frequencies: Tensor

    def __init__(self, n_features: int = 256, scale: float = 1000.0):
        super().__init__()
        if n_features % 2:
            raise ValueError(f"the number of time features must be even, got {n_features}")
        half = n_features // 2
        frequencies = scale * torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
        # Fixed by the constructor's arguments, hence nothing to save.
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, time: Float[Tensor, " cells"]) -> Float[Tensor, "cells features"]:
        """Features of the time of every cell; cosines first."""
        angles = time[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Two-layer network on the features of time.

    Parameters
    ----------
    width
        Channels of the embedding.
    n_features, scale
        As in :class:`SinusoidalTime`.
    """

    def __init__(self, width: int, *, n_features: int = 256, scale: float = 1000.0):
        super().__init__()
        self.features = SinusoidalTime(n_features, scale)
        self.input = nn.Linear(n_features, width)
        self.output = nn.Linear(width, width)
        for layer in (self.input, self.output):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, time: Float[Tensor, " cells"]) -> Float[Tensor, "cells width"]:
        """Embed the time of every cell."""
        return self.output(nn.functional.silu(self.input(self.features(time))))


class FourierFeatures(nn.Module):
    """A standardised number as itself and its sines and cosines at fixed frequencies.

    The number itself carries the trend beyond the range seen; the waves, whose longest period (16 standard deviations)
    spans any ordinary range, let the network resolve steps of about half a standard deviation.

    Parameters
    ----------
    n_frequencies
        Number of frequencies; each is twice the one before.
    longest_period
        Period of the first, in standard deviations.
    """

    frequencies: Tensor

    def __init__(self, n_frequencies: int = 6, longest_period: float = 16.0):
        super().__init__()
        frequencies = 2 * math.pi / longest_period * 2.0 ** torch.arange(n_frequencies, dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.n_features = 2 * n_frequencies + 1

    def forward(self, values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch features"]:
        """Features of every number."""
        angles = values[..., None] * self.frequencies
        return torch.cat([values[..., None], angles.sin(), angles.cos()], dim=-1)


class AttributeEmbedding(nn.Module):
    """Sum of one vector per attribute, with a learned null vector for each attribute that is not given.

    Parameters
    ----------
    n_categories
        Number of categories of every categorical attribute.
    n_continuous
        Number of continuous attributes.
    width
        Channels of the embedding.
    """

    def __init__(self, n_categories: Sequence[int], n_continuous: int, width: int):
        super().__init__()
        self.width = width
        # One row more than there are categories: the last one stands for "not given".
        self.tables = nn.ModuleList(nn.Embedding(n + 1, width) for n in n_categories)
        self.features = FourierFeatures()
        self.projections = nn.ModuleList(nn.Linear(self.features.n_features, width) for _ in range(n_continuous))
        # A list, so that without continuous attributes there is no parameter: distributed training dislikes idle ones.
        self.continuous_null = nn.ParameterList(0.02 * torch.randn(width) for _ in range(n_continuous))
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.02)  # type: ignore[arg-type]
        for projection in self.projections:
            nn.init.normal_(projection.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(projection.bias)  # type: ignore[arg-type]

    def forward(
        self, categorical: Int64[Tensor, "cells categorical"], continuous: Float[Tensor, "cells continuous"]
    ) -> Float[Tensor, "cells width"]:
        """Embed the attributes of every cell.

        Parameters
        ----------
        categorical
            Category codes; -1 where the attribute is not given.
        continuous
            Standardised values; NaN where the attribute is not given.
        """
        if categorical.shape[1] != len(self.tables) or continuous.shape[1] != len(self.projections):
            raise ValueError(
                f"expected {len(self.tables)} categorical and {len(self.projections)} continuous attributes, "
                f"got {categorical.shape[1]} and {continuous.shape[1]}"
            )
        embedded = self.features.frequencies.new_zeros(categorical.shape[0], self.width)
        for table, codes in zip(self.tables, categorical.unbind(1), strict=True):
            null = table.num_embeddings - 1  # type: ignore[operator]
            embedded = embedded + table(torch.where(codes < 0, null, codes))
        missing = continuous.isnan()
        # NaN must be gone before the projection: where() hides it from the value but not from the gradient.
        features = self.features(torch.where(missing, 0.0, continuous))
        for k, projection in enumerate(self.projections):
            embedded = embedded + torch.where(missing[:, k, None], self.continuous_null[k], projection(features[:, k]))
        return embedded

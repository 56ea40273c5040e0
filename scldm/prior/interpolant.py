"""The path from noise to data, and how times on it are drawn for training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["TIME_SAMPLERS", "LinearInterpolant", "PathPoint", "logit_normal_times", "uniform_times"]


@dataclass(frozen=True, eq=False)
class PathPoint:
    """Where a cell is on its path and where it goes.

    Attributes
    ----------
    state
        Point x_t, [cells, state].
    velocity
        Target dx_t/dt, [cells, state].
    """

    state: Float[Tensor, "cells state"]
    velocity: Float[Tensor, "cells state"]


@dataclass(frozen=True)
class LinearInterpolant:
    """Straight path from noise x_0 to data x_1 (flow matching; Lipman et al., 2023; Liu et al., 2023)."""

    def interpolate(
        self,
        noise: Float[Tensor, "cells state"],
        data: Float[Tensor, "cells state"],
        time: Float[Tensor, " cells"],
    ) -> Float[Tensor, "cells state"]:
        """Point on the path, x_t = (1 - t) x_0 + t x_1."""
        t = time[:, None]
        return (1 - t) * noise + t * data

    def velocity(
        self, noise: Float[Tensor, "cells state"], data: Float[Tensor, "cells state"]
    ) -> Float[Tensor, "cells state"]:
        """Velocity of the path, x_1 - x_0, the same at all times."""
        return data - noise

    def point(
        self,
        noise: Float[Tensor, "cells state"],
        data: Float[Tensor, "cells state"],
        time: Float[Tensor, " cells"],
        depth_known: Bool[Tensor, " cells"] | None = None,
    ) -> PathPoint:
        """Training pair: the point at a time and the velocity there.

        Parameters
        ----------
        noise, data
            The two ends, [cells, state]; the last element of the state is the standardised depth.
        time
            In [0, 1].
        depth_known
            Cells whose depth is given instead of generated: their depth stays at the data's value all along the path
            and its velocity is 0. None means no cell (and then the state need not have a depth).
        """
        if depth_known is not None:
            # A path from the data's depth to itself is constant.
            depth = torch.where(depth_known, data[:, -1], noise[:, -1])
            noise = torch.cat([noise[:, :-1], depth[:, None]], dim=1)
            point = self.interpolate(noise, data, time)
            # (1 - t) d + t d is d only up to rounding, and the sampler gives d exactly.
            depth = torch.where(depth_known, data[:, -1], point[:, -1])
            return PathPoint(torch.cat([point[:, :-1], depth[:, None]], dim=1), self.velocity(noise, data))
        return PathPoint(self.interpolate(noise, data, time), self.velocity(noise, data))


def uniform_times(n_cells: int, generator: torch.Generator) -> Float[Tensor, " cells"]:
    """Draw times uniformly from [0, 1), on the generator's device."""
    return torch.rand(n_cells, generator=generator, device=generator.device)


def logit_normal_times(
    n_cells: int, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0
) -> Float[Tensor, " cells"]:
    """Draw times whose logits are normal, which favours the middle of the path (Esser et al., 2024).

    Parameters
    ----------
    n_cells
        How many.
    generator
        Source of randomness; the times are on its device.
    mean, std
        Of the logit; a positive mean favours times near the data.
    """
    return torch.sigmoid(mean + std * torch.randn(n_cells, generator=generator, device=generator.device))


TIME_SAMPLERS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "uniform": uniform_times,
    "logit_normal": logit_normal_times,
}

"""How the times of training points on a path are drawn; :data:`scldm.prior.registry.TIME_SAMPLERS` names these."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["logit_normal_times", "uniform_times"]


def uniform_times(n_cells: int, rng: torch.Generator) -> Float[Tensor, " cells"]:
    """Draw times uniformly from [0, 1), on the device of ``rng``."""
    return torch.rand(n_cells, generator=rng, device=rng.device)


def logit_normal_times(
    n_cells: int, rng: torch.Generator, *, mean: float = 0.0, std: float = 1.0
) -> Float[Tensor, " cells"]:
    """Draw times whose logits are normal, which favours the middle of the path (Esser et al., 2024).

    Parameters
    ----------
    n_cells
        How many.
    rng
        Source of randomness; the times are on its device.
    mean, std
        Of the logit; a positive mean favours times near the data.
    """
    return torch.sigmoid(mean + std * torch.randn(n_cells, generator=rng, device=rng.device))

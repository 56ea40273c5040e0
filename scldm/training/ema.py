"""Exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """Average of the weights along training; what is validated, saved and sampled.

    Parameters
    ----------
    module
        The online network. Its buffers are shared, not averaged.
    decay
        Weight of the past per step; 0 follows the online weights.

    Notes
    -----
    The decay ramps up as ``(1 + steps) / (10 + steps)`` until it reaches ``decay``, so that a short training is not
    dominated by its random initialisation.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.parameters: dict[str, Tensor] = {n: p.detach().clone() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take one step towards the online weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        online = [p.detach() for _, p in module.named_parameters()]
        torch._foreach_lerp_(list(self.parameters.values()), online, 1 - decay)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange the weights of ``module`` and the average; a second call undoes it."""
        for name, parameter in module.named_parameters():
            kept = parameter.detach().clone()
            parameter.copy_(self.parameters[name])
            self.parameters[name].copy_(kept)

"""Weights of a network as named tensors: taking them out, and putting them in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scldm.errors import UserError

__all__ = ["copy_weights", "load_network", "network_tensors"]


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights by name, on the CPU; a weight that two modules share appears once."""
    return {name: p.detach().cpu().contiguous() for name, p in network.named_parameters()}


@torch.no_grad()
def copy_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Overwrite all weights of a network, in place."""
    for name, parameter in network.named_parameters():
        parameter.copy_(weights[name])


def load_network(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Overwrite all weights of a network with those of a file; names and shapes have to agree exactly.

    Raises
    ------
    UserError
        If they do not; ``where`` names the file in the message.
    """
    expected = dict(network.named_parameters())
    for name in sorted(expected.keys() ^ weights.keys()):
        what = "is missing from" if name in expected else "is not expected in"
        raise UserError(f"the weight '{name}' {what} {where}; the file does not belong to this configuration.")
    for name, parameter in expected.items():
        if parameter.shape != weights[name].shape:
            raise UserError(
                f"the weight '{name}' in {where} has shape {tuple(weights[name].shape)}, the configuration asks for "
                f"{tuple(parameter.shape)}."
            )
    copy_weights(network, weights)

"""Weights of a network as named tensors: taking them out, and putting them in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from scldm.errors import UserError

__all__ = ["check_weights", "copy_weights", "load_network", "network_tensors", "save_tensors"]


def network_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights by name, on the CPU; a weight that two modules share appears once."""
    return {name: p.detach().cpu().contiguous() for name, p in network.named_parameters()}


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors; raises ``OSError`` if the disk has no room, whatever the library calls that."""
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        number = int(found.group(1))
        raise OSError(number, os.strerror(number), str(path)) from error


@torch.no_grad()
def copy_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Overwrite all weights of a network, in place."""
    for name, parameter in network.named_parameters():
        parameter.copy_(weights[name])


def load_network(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Overwrite all weights of a network with those of a file; see :func:`check_weights`."""
    check_weights(network, weights, where)
    copy_weights(network, weights)


def check_weights(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Check that weights are those of a network, which may be one without memory (on the device ``meta``).

    Raises
    ------
    UserError
        If names or shapes do not agree exactly; ``where`` names the file in the message.
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

from __future__ import annotations

import pytest
import torch
from torch import nn

from scldm.errors import UserError
from scldm.nn.weights import copy_weights, load_network, network_tensors


def module(value: float) -> nn.Linear:
    linear = nn.Linear(2, 3)
    nn.init.constant_(linear.weight, value)
    nn.init.constant_(linear.bias, -value)
    return linear


def test_weights_are_taken_out_and_put_into_another_network():
    other = module(0.0)
    pointer = other.weight.data_ptr()
    load_network(other, network_tensors(module(3.0)), "a file")
    assert torch.equal(other.weight, torch.full((3, 2), 3.0))
    assert torch.equal(other.bias, torch.full((3,), -3.0))
    # In place: an optimiser keeps working on the same parameters.
    assert other.weight.data_ptr() == pointer
    assert other.weight.requires_grad


def test_copies_take_what_they_need():
    other = module(0.0)
    copy_weights(other, {**network_tensors(module(2.0)), "unrelated": torch.zeros(1)})
    assert torch.equal(other.weight, torch.full((3, 2), 2.0))


def test_a_shared_weight_appears_once():
    first = module(1.0)
    second = module(2.0)
    second.weight = first.weight
    assert sorted(network_tensors(nn.Sequential(first, second))) == ["0.bias", "0.weight", "1.bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "the weight 'bias' is missing from a file"),
        ({"other": torch.zeros(1)}, "the weight 'other' is not expected in a file"),
        ({"bias": torch.zeros(4)}, r"'bias' in a file has shape \(4,\), the configuration asks for \(3,\)"),
    ],
)
def test_weights_of_another_network_are_refused_and_nothing_is_changed(change, message):
    network = module(1.0)
    weights = {k: v for k, v in {**network_tensors(module(2.0)), **change}.items() if v is not None}
    with pytest.raises(UserError, match=message):
        load_network(network, weights, "a file")
    assert torch.equal(network.weight, torch.ones(3, 2))

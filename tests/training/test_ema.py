from __future__ import annotations

import pytest
import torch
from torch import nn

from scldm.training.ema import ExponentialMovingAverage


def module(value: float) -> nn.Linear:
    linear = nn.Linear(2, 3)
    nn.init.constant_(linear.weight, value)
    nn.init.constant_(linear.bias, -value)
    return linear


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_average_is_the_closed_form(decay):
    network = module(1.0)
    average = ExponentialMovingAverage(network, decay)
    path = [1.0]
    for step in range(1, 21):
        value = float(step**1.5)
        path.append(value)
        nn.init.constant_(network.weight, value)
        average.update(network)
    # Unrolled: the value of step s keeps the share (1 - d_s) of it that all later decays leave.
    decays = [min(decay, (1 + s) / (10 + s)) for s in range(1, 21)]
    expected, left = 0.0, 1.0
    for d, value in zip(reversed(decays), reversed(path[1:]), strict=True):
        expected += left * (1 - d) * value
        left *= d
    expected += left * path[0]
    assert average.steps == 20
    torch.testing.assert_close(average.parameters["weight"], torch.full((3, 2), expected), rtol=1e-5, atol=0)
    # What did not move is its own average.
    torch.testing.assert_close(average.parameters["bias"], torch.full((3,), -1.0))


def test_decay_of_zero_follows_the_online_weights():
    network = module(1.0)
    average = ExponentialMovingAverage(network, 0.0)
    nn.init.constant_(network.weight, 5.0)
    average.update(network)
    assert torch.equal(average.parameters["weight"], network.weight)


def test_average_neither_aliases_nor_changes_the_network():
    network = module(1.0)
    average = ExponentialMovingAverage(network, 0.9)
    nn.init.constant_(network.weight, 2.0)
    assert torch.equal(average.parameters["weight"], torch.ones(3, 2))
    average.update(network)
    assert torch.equal(network.weight, torch.full((3, 2), 2.0))
    assert not average.parameters["weight"].requires_grad


def test_swapping_twice_changes_nothing():
    network = module(1.0)
    average = ExponentialMovingAverage(network, 0.9)
    nn.init.constant_(network.weight, 2.0)
    pointer = network.weight.data_ptr()
    average.swap(network)
    assert torch.equal(network.weight, torch.ones(3, 2))
    assert torch.equal(average.parameters["weight"], torch.full((3, 2), 2.0))
    average.swap(network)
    assert torch.equal(network.weight, torch.full((3, 2), 2.0))
    assert torch.equal(average.parameters["weight"], torch.ones(3, 2))
    # In place: an optimiser keeps working on the same parameters.
    assert network.weight.data_ptr() == pointer

from __future__ import annotations

import dataclasses

import pytest
import torch

from scldm.prior.path import interpolate
from scldm.prior.state import CellState


@pytest.fixture
def ends():
    rng = torch.Generator().manual_seed(0)
    return CellState.unpack(torch.randn(6, 5, generator=rng)), CellState.unpack(torch.randn(6, 5, generator=rng))


def test_ends_are_source_and_target(ends):
    source, target = ends
    assert torch.equal(interpolate(source, target, torch.zeros(6)).state, source.pack())
    assert torch.equal(interpolate(source, target, torch.ones(6)).state, target.pack())


def test_closed_form():
    source, target = CellState.unpack(torch.tensor([[2.0, 0.0]])), CellState.unpack(torch.tensor([[6.0, 1.0]]))
    point = interpolate(source, target, torch.tensor([0.25]))
    assert point.state.tolist() == [[3.0, 0.25]]
    assert point.velocity.tolist() == [[4.0, 1.0]]


def test_velocity_is_the_derivative_of_the_path(ends):
    source, target = ends
    time = torch.rand(6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    point = interpolate(source, target, time)
    for column in range(5):
        (slope,) = torch.autograd.grad(point.state[:, column].sum(), time, retain_graph=True)
        torch.testing.assert_close(slope, point.velocity[:, column])


def test_following_the_velocity_reaches_the_target(ends):
    source, target = ends
    time = torch.linspace(0, 0.9, 6)
    point = interpolate(source, target, time)
    torch.testing.assert_close(point.state + (1 - time)[:, None] * point.velocity, target.pack())


def test_known_depth_stays_put(ends):
    source, target = ends
    known = torch.tensor([True, False, True, False, False, True])
    time = torch.linspace(0.1, 0.9, 6)
    free = interpolate(source, target, time)
    point = interpolate(source, dataclasses.replace(target, depth_known=known), time)
    state, velocity, free_state, free_velocity = (
        CellState.unpack(x) for x in (point.state, point.velocity, free.state, free.velocity)
    )
    assert torch.equal(state.depth[known], target.depth[known])
    assert torch.equal(velocity.depth[known], torch.zeros(3))
    assert torch.equal(point.state[~known], free.state[~known])
    assert torch.equal(point.velocity[~known], free.velocity[~known])
    assert torch.equal(state.latents, free_state.latents)
    assert torch.equal(velocity.latents, free_velocity.latents)

from __future__ import annotations

import pytest
import torch

from scldm.prior.interpolant import TIME_SAMPLERS, LinearInterpolant, logit_normal_times, uniform_times

path = LinearInterpolant()


@pytest.fixture
def ends():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)


def test_ends_are_noise_and_data(ends):
    noise, data = ends
    assert torch.equal(path.interpolate(noise, data, torch.zeros(6)), noise)
    assert torch.equal(path.interpolate(noise, data, torch.ones(6)), data)


def test_closed_form():
    noise, data, time = torch.tensor([[2.0, 0.0]]), torch.tensor([[6.0, 1.0]]), torch.tensor([0.25])
    assert path.interpolate(noise, data, time).tolist() == [[3.0, 0.25]]
    assert path.velocity(noise, data).tolist() == [[4.0, 1.0]]


def test_velocity_is_the_derivative_of_the_path(ends):
    noise, data = ends
    time = torch.rand(6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    for column in range(5):
        (slope,) = torch.autograd.grad(path.interpolate(noise, data, time)[:, column].sum(), time)
        torch.testing.assert_close(slope, path.velocity(noise, data)[:, column])


def test_following_the_velocity_reaches_the_data(ends):
    noise, data = ends
    time = torch.linspace(0, 0.9, 6)
    point = path.point(noise, data, time)
    torch.testing.assert_close(point.state + (1 - time)[:, None] * point.velocity, data)


def test_known_depth_stays_put(ends):
    noise, data = ends
    known = torch.tensor([True, False, True, False, False, True])
    time = torch.linspace(0.1, 0.9, 6)
    point, free = path.point(noise, data, time, known), path.point(noise, data, time)
    assert torch.equal(point.state[known, -1], data[known, -1])
    assert torch.equal(point.velocity[known, -1], torch.zeros(3))
    assert torch.equal(point.state[~known], free.state[~known])
    assert torch.equal(point.velocity[~known], free.velocity[~known])
    assert torch.equal(point.state[:, :-1], free.state[:, :-1])
    assert torch.equal(point.velocity[:, :-1], free.velocity[:, :-1])


@pytest.mark.parametrize("name", TIME_SAMPLERS)
def test_times_repeat_with_the_seed(name):
    draw = TIME_SAMPLERS[name]
    first, again = (draw(100, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (100,)
    assert 0 <= first.min() < first.max() <= 1


def test_uniform_times_have_uniform_moments():
    times = uniform_times(20_000, torch.Generator().manual_seed(0))
    assert times.mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert times.var().item() == pytest.approx(1 / 12, abs=0.003)


def test_logit_normal_times_have_normal_logits():
    times = logit_normal_times(20_000, torch.Generator().manual_seed(0), mean=0.5, std=2.0)
    logits = torch.logit(times)
    assert logits.mean().item() == pytest.approx(0.5, abs=0.06)
    assert logits.std().item() == pytest.approx(2.0, abs=0.06)

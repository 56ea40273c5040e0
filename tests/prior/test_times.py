from __future__ import annotations

import pytest
import torch

from scldm.prior.registry import TIME_SAMPLERS
from scldm.prior.times import logit_normal_times, uniform_times


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

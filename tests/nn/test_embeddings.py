from __future__ import annotations

import math

import pytest
import torch

from scldm.nn.embeddings import (
    AttributeEmbedding,
    FourierFeatures,
    SinusoidalTime,
    TimeEmbedding,
    sinusoidal_positions,
)

NAN = math.nan


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_positions_closed_form():
    positions = sinusoidal_positions(5, 8)
    assert positions.shape == (5, 8)
    assert positions[3, 0].item() == pytest.approx(math.sin(3))
    assert positions[3, 2].item() == pytest.approx(math.sin(3 / 100))
    assert positions[3, 7].item() == pytest.approx(math.cos(3 / 1000))
    torch.testing.assert_close(positions.square().sum(-1), torch.full((5,), 4.0))
    with pytest.raises(ValueError, match="even"):
        sinusoidal_positions(5, 7)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_time_features_closed_form(scale):
    features = SinusoidalTime(8, scale)(torch.tensor([0.0, 0.3]))
    assert features[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    for i in range(4):
        angle = 0.3 * scale * 10_000 ** (-i / 4)
        assert features[1, i].item() == pytest.approx(math.cos(angle), abs=1e-4)
        assert features[1, 4 + i].item() == pytest.approx(math.sin(angle), abs=1e-4)


def test_scaled_time_tells_times_apart():
    times = torch.linspace(0, 1, 101)
    moving = {scale: (SinusoidalTime(256, scale)(times).std(0) > 0.1).float().mean().item() for scale in (1.0, 1000.0)}
    # Unscaled, most of the features are constants from noise to data.
    assert moving[1.0] < 0.3
    assert moving[1000.0] > 0.8
    neighbours = {
        scale: (SinusoidalTime(256, scale)(times).diff(dim=0).norm(dim=1)).mean().item() for scale in (1.0, 1000.0)
    }
    assert neighbours[1000.0] > 50 * neighbours[1.0]


def test_time_embedding_separates_neighbouring_times():
    embed = TimeEmbedding(16)
    early, late = embed(torch.tensor([0.50, 0.51]))
    assert (early - late).norm() > 0.1 * early.norm()


def test_time_features_are_not_saved():
    assert set(TimeEmbedding(16).state_dict()) == {"input.weight", "input.bias", "output.weight", "output.bias"}


def test_fourier_features_closed_form():
    features = FourierFeatures(2, longest_period=16.0)(torch.tensor([[2.0]]))[0, 0]
    expected = [2, math.sin(math.pi / 4), math.sin(math.pi / 2), math.cos(math.pi / 4), math.cos(math.pi / 2)]
    assert features.tolist() == pytest.approx(expected, abs=1e-6)


def attributes():
    return AttributeEmbedding((3, 2), 2, 8)


def test_attributes_add_up():
    embed = attributes()
    both = embed(torch.tensor([[2, 1]]), torch.tensor([[0.5, -1.0]]))
    nothing = embed(torch.tensor([[-1, -1]]), torch.tensor([[NAN, NAN]]))
    alone = [
        embed(torch.tensor([[2, -1]]), torch.tensor([[NAN, NAN]])),
        embed(torch.tensor([[-1, 1]]), torch.tensor([[NAN, NAN]])),
        embed(torch.tensor([[-1, -1]]), torch.tensor([[0.5, NAN]])),
        embed(torch.tensor([[-1, -1]]), torch.tensor([[NAN, -1.0]])),
    ]
    torch.testing.assert_close(both - nothing, sum(a - nothing for a in alone))


def test_null_is_the_last_row_and_the_learned_vector():
    embed = attributes()
    nothing = embed(torch.tensor([[-1, -1]]), torch.tensor([[NAN, NAN]]))[0]
    expected = embed.tables[0].weight[3] + embed.tables[1].weight[2] + sum(embed.continuous_null)
    torch.testing.assert_close(nothing, expected)


def test_null_attributes_leave_no_gradient_behind():
    embed = attributes()
    embed(torch.tensor([[-1, 1], [-1, 0]]), torch.tensor([[NAN, 1.0], [NAN, NAN]])).square().sum().backward()
    assert embed.tables[0].weight.grad[:3].abs().sum() == 0
    assert embed.tables[0].weight.grad[3].abs().sum() > 0
    assert embed.projections[0].weight.grad.abs().sum() == 0
    assert embed.projections[1].weight.grad.isfinite().all()
    assert embed.projections[1].weight.grad.abs().sum() > 0


def test_no_attributes_is_zero():
    embedded = AttributeEmbedding((), 0, 8)(torch.empty(3, 0, dtype=torch.int64), torch.empty(3, 0))
    assert torch.equal(embedded, torch.zeros(3, 8))


def test_wrong_attributes_are_refused():
    embed = attributes()
    with pytest.raises(ValueError, match="2 categorical and 2 continuous attributes, got 1 and 2"):
        embed(torch.tensor([[1]]), torch.tensor([[0.0, 0.0]]))
    with pytest.raises(IndexError):
        embed(torch.tensor([[4, 0]]), torch.tensor([[0.0, 0.0]]))

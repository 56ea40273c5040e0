from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from scldm.config import PriorConfig, TrainingConfig
from scldm.prior.dit import DiT
from scldm.prior.latents import LatentBatch, LatentStatistics
from scldm.prior.objective import PriorObjective
from scldm.seeds import torch_rng

N_CELLS, STATE = 2000, 6
STATISTICS = LatentStatistics(torch.arange(STATE).float(), torch.linspace(0.5, 2.0, STATE))


class Spy(DiT):
    """Remembers what it was asked, and answers with a velocity of ones."""

    def forward(self, state, time, categorical, continuous, depth_known=None, dropout_seeds=None):
        self.asked = {
            "state": state,
            "time": time,
            "categorical": categorical,
            "continuous": continuous,
            "known": depth_known,
        }
        return torch.ones_like(state)


def batch_of(n_cells: int = N_CELLS, log_variance: float = -1.0, seed: int = 0) -> LatentBatch:
    random = np.random.default_rng(seed)
    continuous = random.normal(size=(n_cells, 1)).astype(np.float32)
    continuous[: n_cells // 10] = np.nan
    return LatentBatch(
        mean=torch.from_numpy(random.normal(size=(n_cells, STATE)).astype(np.float32)),
        log_variance=torch.full((n_cells, STATE), log_variance),
        depth=torch.from_numpy(random.normal(size=n_cells).astype(np.float32)),
        categorical=torch.from_numpy(random.integers(-1, 3, (n_cells, 2))),
        continuous=torch.from_numpy(continuous),
    )


def objective_of(network: type[DiT] = Spy, width: int = 8, **changes) -> PriorObjective:
    torch.manual_seed(0)
    config = PriorConfig(width=width, n_heads=2, **changes)
    return PriorObjective(network(3, 2, width, 1, 2, (3, 3), 1), STATISTICS, config)


def noise_of(objective: PriorObjective, n_cells: int = N_CELLS, step: int = 0) -> dict[str, torch.Tensor]:
    return objective.draw_noise(n_cells, torch_rng(0, "prior", step, "cpu"))


def test_network_sees_points_on_the_straight_path_and_the_loss_is_the_squared_error():
    objective, batch = objective_of(), batch_of()
    noise = noise_of(objective)
    losses = objective(batch, noise)["loss"]
    asked = objective.network.asked
    latents = (batch.mean + np.exp(-0.5) * noise["posterior"] - STATISTICS.mean) / STATISTICS.std
    data = torch.cat([latents, batch.depth[:, None]], 1)
    t = noise["time"][:, None]
    path = (1 - t) * noise["state"] + t * data
    torch.testing.assert_close(asked["state"][:, :-1], path[:, :-1])
    torch.testing.assert_close(asked["time"], noise["time"])
    velocity = data - noise["state"]
    free = ~asked["known"]
    torch.testing.assert_close(losses[free], (1 - velocity[free]).square().mean(1))
    # A given depth does not move; the network is told it as it is.
    velocity[:, -1] = 0.0
    torch.testing.assert_close(losses[~free], (1 - velocity[~free]).square().mean(1))
    assert torch.equal(asked["state"][~free, -1], batch.depth[~free])
    torch.testing.assert_close(asked["state"][free, -1], path[free, -1])


def test_attributes_are_hidden_independently_at_the_rate_asked_for():
    objective, batch = objective_of(attribute_dropout=0.3, joint_attribute_dropout=0.0), batch_of(20_000)
    objective(batch, noise_of(objective, 20_000))
    asked = objective.network.asked
    shown = torch.cat([asked["categorical"] >= 0, ~asked["continuous"].isnan()], 1)
    had = torch.cat([batch.categorical >= 0, ~batch.continuous.isnan()], 1)
    assert not (shown & ~had).any()
    kept = shown[had.all(1)].double()
    n = len(kept)
    assert n > 5000
    np.testing.assert_allclose(kept.mean(0), 0.7, atol=5 * np.sqrt(0.21 / n))
    assert np.abs(np.corrcoef(kept.T.numpy()) - np.eye(3)).max() < 5 / np.sqrt(n)
    # What is shown is what the cell has.
    assert torch.equal(asked["categorical"][shown[:, :2]], batch.categorical[shown[:, :2]])
    assert torch.equal(asked["continuous"][shown[:, 2:]], batch.continuous[shown[:, 2:]])


def test_all_attributes_are_hidden_together_from_a_share_of_the_cells():
    """So a field without attributes is learnt however many there are."""
    each, jointly = 0.15, 0.1
    objective = objective_of(attribute_dropout=each, joint_attribute_dropout=jointly)
    batch = batch_of(20_000)
    objective(batch, noise_of(objective, 20_000))
    asked = objective.network.asked
    shown = torch.cat([asked["categorical"] >= 0, ~asked["continuous"].isnan()], 1)
    complete = torch.cat([batch.categorical >= 0, ~batch.continuous.isnan()], 1).all(1)
    bare = (~shown[complete].any(1)).double()
    expected = jointly + (1 - jointly) * each**3
    assert bare.mean().item() == pytest.approx(expected, abs=5 * np.sqrt(expected / len(bare)))
    one = shown[complete][:, 0].double().mean().item()
    assert one == pytest.approx((1 - jointly) * (1 - each), abs=5 * np.sqrt(0.25 / len(bare)))


@pytest.mark.parametrize(("dropout", "given"), [(0.0, 0.0), (0.9, 0.6)])
def test_shares_of_hidden_attributes_and_given_depths(dropout, given):
    shares = {"attribute_dropout": dropout, "joint_attribute_dropout": 0.0, "given_depth_fraction": given}
    objective, batch = objective_of(**shares), batch_of()
    objective(batch, noise_of(objective))
    asked = objective.network.asked
    labelled = batch.categorical >= 0
    assert (asked["categorical"][labelled] >= 0).double().mean().item() == pytest.approx(1 - dropout, abs=0.03)
    assert asked["known"].double().mean().item() == pytest.approx(given, abs=0.06)
    assert asked["known"].any().item() == (given > 0)


def test_posterior_noise_is_scaled_by_its_deviation():
    noise = noise_of(objective_of())
    for log_variance in (-30.0, 1.0):
        objective, batch = objective_of(), batch_of(log_variance=log_variance)
        objective(batch, {**noise, "time": torch.ones(N_CELLS)})
        latents = STATISTICS.restore(objective.network.asked["state"][:, :-1])
        expected = batch.mean + np.exp(0.5 * log_variance) * noise["posterior"]
        torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)


def test_times_follow_the_distribution_asked_for():
    uniform = noise_of(objective_of(), 20_000)["time"]
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.01)
    assert uniform.var().item() == pytest.approx(1 / 12, abs=0.003)
    logit = torch.logit(noise_of(objective_of(time_distribution="logit_normal"), 20_000)["time"])
    assert (logit.mean().item(), logit.std().item()) == pytest.approx((0.0, 1.0), abs=0.04)


def test_gradient_reaches_every_parameter():
    objective, batch = objective_of(DiT), batch_of(200)
    # The output and the gates start at zero (adaLN-zero); random ones let everything behind them be reached.
    for parameter in objective.network.parameters():
        nn.init.normal_(parameter, std=0.3)
    objective(batch, noise_of(objective, 200))["loss"].mean().backward()
    for name, parameter in objective.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_untrained_network_has_the_loss_of_a_velocity_of_zero():
    objective, batch = objective_of(DiT), batch_of()
    noise = noise_of(objective)
    latents = (batch.mean + np.exp(-0.5) * noise["posterior"] - STATISTICS.mean) / STATISTICS.std
    velocity = torch.cat([latents, batch.depth[:, None]], 1) - noise["state"]
    velocity[noise["give_depth"] < 0.25, -1] = 0.0
    torch.testing.assert_close(objective(batch, noise)["loss"], velocity.square().mean(1), rtol=1e-4, atol=1e-5)


def test_conditional_means_are_learnt():
    """Two categories with opposite latents: after training, the velocity at time 0 points to the right one."""
    objective, n_steps = objective_of(DiT, width=32, given_depth_fraction=0.0), 150
    # Clipped and with a rate that ends at zero, as the product trains: of six seeds, the worst is 0.12 off.
    config = TrainingConfig(learning_rate=1e-2)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=config.learning_rate, betas=config.betas)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    random = np.random.default_rng(0)
    for step in range(n_steps):
        codes = torch.from_numpy(random.integers(0, 2, (256, 1)))
        batch = LatentBatch(
            mean=STATISTICS.mean + STATISTICS.std * (2.0 * codes - 1),
            log_variance=torch.full((256, STATE), -30.0),
            depth=torch.zeros(256),
            categorical=torch.cat([codes, torch.full((256, 1), -1)], 1),
            continuous=torch.full((256, 1), torch.nan),
        )
        optimizer.zero_grad()
        objective(batch, noise_of(objective, 256, step))["loss"].mean().backward()
        nn.utils.clip_grad_norm_(objective.parameters(), config.clip_norm)
        optimizer.step()
        decay.step()
    # At time 0 the best velocity is the conditional mean of the data minus the noise.
    noise = torch.randn(600, STATE + 1, generator=torch.Generator().manual_seed(0))
    for code, expected in ((0, -1.0), (1, 1.0), (-1, 0.0)):
        with torch.no_grad():
            categorical = torch.tensor([[code, -1]]).repeat(600, 1)
            velocity = objective.network(noise, torch.zeros(600), categorical, torch.full((600, 1), torch.nan))
        assert (velocity + noise)[:, :-1].mean().item() == pytest.approx(expected, abs=0.25)

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import tiny
import torch

from scldm.config import TrainingConfig
from scldm.data.batch import CellBatch
from scldm.seeds import torch_rng
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective

N_GENES = 60


def objective_of(layout: str = "wide", bottleneck: str = "gaussian", **changes) -> VAEObjective:
    torch.manual_seed(0)
    config = tiny.tiny_vae(layout=layout, bottleneck=bottleneck, **changes)
    return VAEObjective(VAE(config, N_GENES))


def noise_of(objective: VAEObjective, n_cells: int, step: int = 0) -> dict[str, torch.Tensor]:
    return objective.draw_noise(n_cells, torch_rng(0, "vae", step, "cpu"))


@pytest.mark.parametrize("layout", ["wide", "published"])
@pytest.mark.parametrize("bottleneck", ["gaussian", "layernorm"])
def test_loss_is_the_negative_evidence_lower_bound_with_a_weighted_kl(layout, bottleneck):
    objective, batch = objective_of(layout, bottleneck, kl_weight=0.7).eval(), tiny.tiny_batch()
    noise = noise_of(objective, 8)
    vae = objective.network
    posterior = vae.encode(batch)
    heads = vae.heads(posterior.sample(noise["latents"]))
    expected = vae.likelihood.negative_log_likelihood(heads, batch)
    losses = objective(batch, noise)
    torch.testing.assert_close(losses["nll"], expected)
    torch.testing.assert_close(losses["kl"], posterior.kl_divergence())
    torch.testing.assert_close(losses["loss"], expected + 0.7 * posterior.kl_divergence())
    assert (losses["kl"] > 0).all() == (bottleneck == "gaussian")


def test_noise_decides_about_dropout_only_in_training():
    objective, batch = objective_of(dropout=0.5), tiny.tiny_batch()
    noise = noise_of(objective, 8)
    assert noise["dropout"].shape == (8, 16)
    other = {**noise, "dropout": 1 - noise["dropout"]}
    objective.train()
    assert not torch.equal(objective(batch, noise)["loss"], objective(batch, other)["loss"])
    objective.eval()
    assert torch.equal(objective(batch, noise)["loss"], objective(batch, other)["loss"])
    assert "dropout" not in noise_of(objective_of(dropout=0.0), 8)
    assert "dropout" not in noise_of(objective_of("published"), 8)


def test_noise_is_a_function_of_the_step():
    objective = objective_of()
    first, again, next_step = (noise_of(objective, 5, step) for step in (3, 3, 4))
    for key in first:
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], next_step[key])


@pytest.mark.parametrize("layout", ["wide", "published"])
@pytest.mark.parametrize("bottleneck", ["gaussian", "layernorm"])
def test_gradient_reaches_every_parameter(layout, bottleneck):
    objective = objective_of(layout, bottleneck)
    # A start of zeros somewhere may hide its neighbours from the first gradient; training moves it away from there.
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-3)
    batch = tiny.tiny_batch(60)
    for step in range(2):
        objective.zero_grad()
        objective(batch, noise_of(objective, 60, step))["loss"].mean().backward()
        optimizer.step()
    for name, parameter in objective.network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    tables = [p for n, p in objective.network.named_parameters() if p.shape[0] in (N_GENES, N_GENES + 1)]
    assert len(tables) >= 2
    for table in tables:
        # Every expressed gene learns.
        assert (table.grad[:N_GENES].reshape(N_GENES, -1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("layout", ["wide", "published"])
@pytest.mark.parametrize("bottleneck", ["gaussian", "layernorm"])
def test_a_single_batch_is_learnt_by_heart(layout, bottleneck):
    """Cells of two opposite types: independent genes cannot tell them apart, a latent can."""
    random = np.random.default_rng(0)
    rates = np.where((np.arange(16) < 8)[:, None] == (np.arange(N_GENES) < 30)[None], 10.0, 0.2)
    counts = random.poisson(rates)
    batch = CellBatch.from_csr(sp.csr_matrix(counts))
    torch.manual_seed(0)
    vae_config = tiny.tiny_vae(layout=layout, bottleneck=bottleneck, kl_weight=0.01)
    objective = VAEObjective(VAE(vae_config, N_GENES, gene_totals=counts.sum(0).astype(np.float64)))
    with torch.no_grad():
        log_rates = torch.from_numpy(np.log(counts.sum(0) / counts.sum())).float().expand(16, -1)
        independent = objective.network.likelihood.negative_log_likelihood({"log_rate": log_rates}, batch).mean()
    # As the product trains. Of seven seeds, every one ends between 84 and 104; at 1e-2 the loss jumps now and then.
    config = TrainingConfig(learning_rate=3e-3)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=config.learning_rate, betas=config.betas)
    for step in range(200):
        losses = objective(batch, noise_of(objective, 16, step))
        optimizer.zero_grad()
        losses["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), config.clip_norm)
        optimizer.step()
    objective.eval()
    learnt = objective(batch, noise_of(objective, 16))["nll"].mean()
    assert learnt < independent - 40


def test_dispersion_follows_the_attribute_named():
    torch.manual_seed(0)
    batch = tiny.tiny_batch(30)
    objective = VAEObjective(VAE(tiny.tiny_vae(), N_GENES, n_dispersion_categories=3), 0).eval()
    noise = noise_of(objective, 30)
    before = objective(batch, noise)["nll"]
    with torch.no_grad():
        objective.network.likelihood.scaled_offset[1].fill_(-0.3)
    moved = objective(batch, noise)["nll"] != before
    assert torch.equal(moved, batch.categorical[:, 0] == 1)


@pytest.mark.parametrize(
    ("layout", "likelihood", "by_category"),
    [
        ("wide", "negative_binomial", False),
        ("wide", "negative_binomial", True),
        ("wide", "poisson", False),
        ("wide", "zero_inflated_negative_binomial", True),
        ("wide", "zero_inflated_negative_binomial_by_gene", False),
        ("published", "negative_binomial", False),
    ],
)
def test_gradients_do_not_depend_on_how_threads_interleave(layout, likelihood, by_category):
    """More entries than torch gives to one thread, and genes and categories that repeat among them."""
    random = np.random.default_rng(0)
    n_cells, n_genes = 64, 900
    counts = sp.csr_matrix(random.poisson(2.0, (n_cells, n_genes)).astype(np.float32))
    assert counts.nnz > 40_000
    batch = CellBatch.from_csr(counts, random.integers(0, 2, (n_cells, 1)))
    torch.manual_seed(0)
    vae = VAE(tiny.tiny_vae(layout=layout, likelihood=likelihood), n_genes, 2 if by_category else 0)
    objective = VAEObjective(vae, 0 if by_category else None)
    noise = noise_of(objective, n_cells)
    torch.set_num_threads(2)
    gradients = []
    for _ in range(6):
        objective.zero_grad()
        objective(batch, noise)["loss"].mean().backward()
        gradients.append([p.grad.clone() for p in objective.parameters()])
    for repeated in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], repeated, strict=True))


def test_read_outs_have_a_gaussian_prior_in_training():
    torch.manual_seed(0)
    config, batch = tiny.tiny_vae(dropout=0.0, read_out_std=0.2), tiny.tiny_batch()
    objective = VAEObjective(VAE(config, N_GENES), n_training_cells=50)
    noise = noise_of(objective, 8)
    in_training, in_validation = objective.train()(batch, noise), objective.eval()(batch, noise)
    squares = objective.network.decoder.unpooling.read_out.square().sum()
    torch.testing.assert_close(in_training["loss"] - in_validation["loss"], (squares / (2 * 0.04 * 50)).expand(8))
    torch.testing.assert_close(in_training["nll"], in_validation["nll"])


def test_attributes_are_hidden_from_the_encoder_by_their_share_and_only_in_training():
    torch.manual_seed(0)
    batch = tiny.tiny_batch()
    rates = {"attribute_dropout": 0.3, "joint_attribute_dropout": 0.1}
    vae = VAE(tiny.tiny_vae(dropout=0.0, **rates), N_GENES, n_categories=(3,))
    objective = VAEObjective(vae)
    noise = {**noise_of(objective, 8), "hide": torch.linspace(0, 0.7, 8)[:, None].repeat(1, 2)}
    noise["hide"][:7, 1], noise["hide"][7, 1] = 0.5, 0.05  # the last cell loses all, the first three this one
    hidden = objective(batch.hide_attributes(), noise)["loss"]
    shown = objective.eval()(batch, noise)["loss"]
    assert (hidden != shown).all()
    trained = objective.train()(batch, noise)["loss"]
    torch.testing.assert_close(trained[:3], hidden[:3])
    torch.testing.assert_close(trained[3:7], shown[3:7])
    torch.testing.assert_close(trained[7:], hidden[7:])
    assert "hide" not in noise_of(objective_of(), 8)

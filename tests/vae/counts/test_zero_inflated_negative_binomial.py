from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import tiny
import torch
from accelerate import Accelerator
from scipy import stats
from scipy.special import expit, log_expit

from scldm.config import RunConfig
from scldm.data.batch import CellBatch
from scldm.model import ScLDM
from scldm.seeds import torch_rng
from scldm.vae.counts.negative_binomial import NegativeBinomial, negative_binomial_nll
from scldm.vae.counts.zero_inflated_negative_binomial import (
    ZeroInflatedNegativeBinomial,
    ZeroInflatedNegativeBinomialByGene,
    zero_inflated_negative_binomial_nll,
)
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective

N_CELLS, N_GENES = 5, 9
GATES = ["per gene", "per cell and gene"]
NAMES = ["zero_inflated_negative_binomial", "zero_inflated_negative_binomial_by_gene"]


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.fixture
def batch() -> CellBatch:
    """Cells of which one is empty, one expresses all genes, and one gene is expressed by none."""
    counts = np.random.default_rng(0).poisson(0.8, (N_CELLS, N_GENES))
    counts[1], counts[3], counts[3, 0] = 0, 2, 500
    counts[:, 4] = 0
    return CellBatch.from_csr(sp.csr_matrix(counts))


def shape_of(per: str) -> tuple[int, ...]:
    return (N_GENES,) if per == "per gene" else (N_CELLS, N_GENES)


def nll_of(batch: CellBatch, log_rates: torch.Tensor, theta: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    kind = log_rates.dtype
    return zero_inflated_negative_binomial_nll(
        log_rates, theta, gate, batch.counts.to(kind), batch.gene_ids, batch.cell_ids(), batch.library_size.to(kind)
    )


def mixture(counts: np.ndarray, mean: np.ndarray, theta: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """Log-probability of every count: a point mass at zero mixed with scipy's negative binomial."""
    law = stats.nbinom(theta, theta / (theta + mean)).logpmf(counts)
    positive = log_expit(-gate) + law
    return np.where(counts == 0, np.logaddexp(log_expit(gate), positive), positive)


# Log-probabilities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", GATES)
def test_log_likelihood_is_the_mixture_of_scipy(per):
    """Counts up to 40,000, dispersions over their whole range, gates from nearly never to nearly always closed."""
    random = np.random.default_rng(0)
    n_cells, n_genes = 6, 30
    counts = random.poisson(random.gamma(0.3, 20.0, (n_cells, n_genes)))
    counts[0, :3] = (1, 40_000, 0)
    counts[5] = 0
    counts[5, 2] = 1
    batch = CellBatch.from_csr(sp.csr_matrix(counts))
    log_rates, theta = 2 * randn(n_cells, n_genes).detach(), torch.linspace(-6, 8, n_genes, dtype=torch.float64).exp()
    gate = 8 * randn(*(n_genes,) if per == "per gene" else (n_cells, n_genes), seed=1).detach()
    mean = (log_rates.softmax(1) * batch.library_size[:, None].double()).numpy()
    expected = -mixture(counts, mean, theta.numpy(), gate.numpy()).sum(1)
    np.testing.assert_allclose(nll_of(batch, log_rates, theta, gate), expected, rtol=1e-9)
    in_single = nll_of(batch, log_rates.float(), theta.float(), gate.float())
    # The logarithm of 40,000 factorial has an error of 0.03 in float32.
    np.testing.assert_allclose(in_single, expected, rtol=5e-5)


def test_zeros_are_accurate_in_float32_whatever_the_mean_and_the_gate():
    """A cell for every pair, of a single gene, to which its whole library size belongs."""
    mean, gate = (x.ravel() for x in np.meshgrid(np.logspace(-8, 5, 27), np.linspace(-100, 100, 41)))
    nothing = torch.zeros(0, dtype=torch.int64)
    for theta in (np.exp(-6), 1.0, np.exp(8)):
        of = {"dtype": torch.float32}
        ours = zero_inflated_negative_binomial_nll(
            torch.zeros(len(mean), 1),
            torch.tensor([theta], **of),
            torch.tensor(gate[:, None], **of),
            torch.zeros(0),
            nothing,
            nothing,
            torch.tensor(mean, **of),
        )
        expected = np.logaddexp(log_expit(gate), log_expit(-gate) - theta * np.log1p(mean / theta))
        np.testing.assert_allclose(ours, -expected, rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("gate", [-80.0, 80.0])
def test_shut_and_open_gates_stay_finite(batch, gate):
    """A gate that is never closed is no gate; behind one that is always closed, a count is all but impossible."""
    log_rates = torch.zeros(N_CELLS, N_GENES)
    log_rates[:, 0] = 300.0  # The other shares are zero in float32, and some of their genes are expressed.
    leaves = [log_rates.requires_grad_(), torch.ones(N_GENES).requires_grad_(), torch.full((N_GENES,), gate)]
    nll = nll_of(batch, leaves[0], leaves[1], leaves[2].requires_grad_())
    nll.sum().backward()
    assert nll.isfinite().all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("per_cell", [False, True])
def test_without_gates_it_is_the_negative_binomial(batch, per_cell):
    log_rates = randn(N_CELLS, N_GENES)
    theta = randn(*((N_CELLS, N_GENES) if per_cell else (N_GENES,)), seed=1).detach().exp().requires_grad_()
    arguments = batch.counts.double(), batch.gene_ids, batch.cell_ids(), batch.library_size.double()
    without = negative_binomial_nll(log_rates, theta, *arguments)
    gaps = []
    for logit in (-10.0, -20.0, -40.0):
        gated = nll_of(batch, log_rates, theta, torch.full((N_GENES,), logit, dtype=torch.float64))
        gaps.append((gated - without).abs().max().item())
    assert gaps[0] < 0.05
    assert gaps[1] < 1e-4 * gaps[0]
    gradients = [torch.autograd.grad(nll.sum(), (log_rates, theta)) for nll in (gated, without)]
    torch.testing.assert_close(gated, without)
    torch.testing.assert_close(*gradients)


# Gradients --------------------------------------------------------------------------------------------------------


def plain_nll(batch: CellBatch, log_rates: torch.Tensor, theta: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The formula as it is written, for automatic differentiation."""
    # The empty cell: its law is that of a library size of next to nothing.
    mean = log_rates.softmax(1) * batch.library_size.double().clamp_min(1e-30)[:, None]
    law = torch.distributions.NegativeBinomial(theta.expand_as(mean), logits=mean.log() - theta.log())
    counts, gate = batch.dense(N_GENES).double(), gate.expand_as(mean)
    positive = torch.nn.functional.logsigmoid(-gate) + law.log_prob(counts)
    zero = torch.logaddexp(torch.nn.functional.logsigmoid(gate), positive)
    return -torch.where(counts == 0, zero, positive).sum(1)


@pytest.mark.parametrize("gate_per", GATES)
@pytest.mark.parametrize("theta_per", GATES)
def test_gradients_are_those_of_the_plain_formula(batch, gate_per, theta_per):
    leaves = (
        randn(N_CELLS, N_GENES),
        randn(*shape_of(theta_per), seed=1).detach().exp().requires_grad_(),
        randn(*shape_of(gate_per), seed=2),
    )
    ours, plain = nll_of(batch, *leaves), plain_nll(batch, *leaves)
    torch.testing.assert_close(ours, plain)
    # Cells count differently, so that a gradient that is only right for their mean is found out.
    weights = torch.linspace(0.5, 2, N_CELLS, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(weights @ ours, leaves), torch.autograd.grad(weights @ plain, leaves)
    )
    assert torch.autograd.gradcheck(lambda *of: nll_of(batch, *of), leaves)


@pytest.mark.parametrize("gate_per", GATES)
def test_gradients_are_right_where_genes_were_not_measured(batch, gate_per):
    """As if the genes were not there: their rates are minus infinity, and all their gradients zero."""
    absent = torch.zeros(N_CELLS, N_GENES, dtype=torch.bool)
    absent[:, 4] = True
    absent[1, :3] = True
    leaves = (randn(N_CELLS, N_GENES), randn(N_GENES, seed=1).detach().exp().requires_grad_(),
              randn(*shape_of(gate_per), seed=2))  # fmt: skip

    def masked(log_rates, theta, gate):
        return nll_of(batch, log_rates.masked_fill(absent, -torch.inf), theta, gate)

    assert torch.autograd.gradcheck(masked, leaves)
    of_rates, of_theta, of_gate = torch.autograd.grad(masked(*leaves).sum(), leaves)
    assert (of_rates[absent] == 0).all()
    assert of_theta[4] == 0
    assert (of_gate[..., 4] == 0).all()
    assert (of_gate != 0).any()


# Draws ------------------------------------------------------------------------------------------------------------


def likelihood_with(
    kind: type[ZeroInflatedNegativeBinomial], theta: torch.Tensor, gate: torch.Tensor
) -> ZeroInflatedNegativeBinomial:
    """Set inverse dispersions and the gates of genes."""
    likelihood = kind(len(theta))
    with torch.no_grad():
        likelihood.scaled_log_theta.copy_(theta.log() / likelihood.STEP_FACTOR)
        likelihood.scaled_gate_logit.copy_((gate - likelihood.INITIAL_GATE_LOGIT) / likelihood.STEP_FACTOR)
    return likelihood


@pytest.mark.parametrize("by_gene", [False, True])
def test_samples_have_the_moments_of_the_mixture(by_gene):
    n_draws, theta = 40_000, torch.tensor([0.3, 5.0, 0.5, 2000.0, 3.0])
    mean, gate = torch.tensor([0.02, 0.7, 3.0, 30.0, 300.0]), torch.tensor([0.0, -1.0, 1.5, -3.0, 0.3])
    heads, total = {"log_rate": mean.log().expand(n_draws, -1)}, mean.sum().expand(n_draws)
    if by_gene:
        likelihood = likelihood_with(ZeroInflatedNegativeBinomialByGene, theta, gate)
    else:
        likelihood = likelihood_with(ZeroInflatedNegativeBinomial, theta, torch.zeros(5))
        heads["gate_logit"] = gate.expand(n_draws, -1)
    drawn = likelihood.sample(heads, total, torch.Generator().manual_seed(1))
    x = drawn.to_csr().toarray().astype(np.float64)
    assert (x == np.round(x)).all()

    mu, r, pi = mean.double().numpy(), theta.double().numpy(), expit(gate.double().numpy())
    expected_mean = (1 - pi) * mu
    expected_variance = (1 - pi) * (mu + mu**2 / r) + pi * (1 - pi) * mu**2
    zero = pi + (1 - pi) * stats.nbinom(r, r / (r + mu)).pmf(0)
    # Five standard errors of each estimate; that of the variance follows from the fourth moment.
    assert (np.abs(x.mean(0) - expected_mean) < 5 * np.sqrt(expected_variance / n_draws)).all()
    fourth = ((x - x.mean(0)) ** 4).mean(0)
    assert (np.abs(x.var(0) - expected_variance) < 5 * np.sqrt((fourth - x.var(0) ** 2) / n_draws)).all()
    assert (np.abs((x == 0).mean(0) - zero) < 5 * np.sqrt(zero * (1 - zero) / n_draws)).all()
    np.testing.assert_allclose(likelihood.expected_counts(heads, total)[0].detach(), expected_mean, rtol=1e-5)


@pytest.mark.parametrize("by_gene", [False, True])
def test_what_a_cell_draws_follows_from_the_generator_and_not_from_the_cells_after_it(by_gene):
    kind = ZeroInflatedNegativeBinomialByGene if by_gene else ZeroInflatedNegativeBinomial
    likelihood = likelihood_with(kind, torch.ones(40), torch.linspace(-3, 3, 40))
    mean = torch.logspace(-3, 3.5, 40).repeat(20, 1)
    other = mean.clone()
    other[7:] = other[7:].flip(1) * 0.3
    gates = torch.zeros(20, 40), torch.cat([torch.zeros(7, 40), torch.ones(13, 40)])

    def draw(mean: torch.Tensor, gate: torch.Tensor, seed: int = 0) -> np.ndarray:
        heads = {"log_rate": mean.log(), "gate_logit": gate}
        return likelihood.sample(heads, mean.sum(1), torch.Generator().manual_seed(seed)).to_csr().toarray()

    first, second = draw(mean, gates[0]), draw(other, gates[1])
    assert np.array_equal(first[:7], second[:7])
    assert not np.array_equal(first[7:], second[7:])
    assert np.array_equal(first, draw(mean, gates[0]))
    assert not np.array_equal(first, draw(mean, gates[0], seed=1))


# In the autoencoder -----------------------------------------------------------------------------------------------


def test_the_gate_is_the_genes_own_and_what_the_decoder_says_of_the_cell():
    heads = {"log_rate": torch.zeros(3, 4), "gate_logit": torch.arange(12.0).view(3, 4)}
    both, gene = ZeroInflatedNegativeBinomial(4), ZeroInflatedNegativeBinomialByGene(4)
    assert (both.heads, gene.heads) == (("log_rate", "gate_logit"), ("log_rate",))
    with torch.no_grad():
        for likelihood in (both, gene):
            likelihood.scaled_gate_logit[2] = 0.25
    own = torch.tensor([-4.0, -4.0, -1.5, -4.0])
    torch.testing.assert_close(gene.gate_logit(heads), own)
    torch.testing.assert_close(both.gate_logit(heads), own + heads["gate_logit"])


@pytest.mark.parametrize("layout", ["wide", "published"])
def test_a_second_head_leaves_the_rates_alone_and_starts_neutral(layout):
    vaes = {}
    for name in ("negative_binomial", *NAMES):
        torch.manual_seed(0)
        vaes[name] = VAE(tiny.tiny_vae(layout=layout, likelihood=name), 60).eval()
    latents = randn(4, 2, 4).detach().float()
    heads = {name: vae.heads(latents) for name, vae in vaes.items()}
    assert [list(of) for of in heads.values()] == [["log_rate"], ["log_rate", "gate_logit"], ["log_rate"]]
    for name in NAMES:
        assert torch.equal(heads[name]["log_rate"], heads["negative_binomial"]["log_rate"])
    assert (heads[NAMES[0]]["gate_logit"] == 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["wide", "published"])
def test_training_finds_the_genes_with_gates(layout, name):
    """Four genes are shut in half of the cells, for no reason that a latent could know."""
    random, start = np.random.default_rng(0), np.where(np.arange(60) < 4, 10_000.0, 20_000.0)
    torch.manual_seed(0)
    vae = VAE(tiny.tiny_vae(layout=layout, likelihood=name, kl_weight=3.0), 60, gene_totals=start)
    objective = VAEObjective(vae, n_training_cells=10_000).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-2)
    nll = []
    for step in range(150):
        counts = random.poisson(20.0, (32, 60))
        counts[:, :4] *= random.random((32, 4)) < 0.5
        batch = CellBatch.from_csr(sp.csr_matrix(counts))
        losses = objective(batch, objective.draw_noise(32, torch_rng(0, "vae", step, "cpu")))
        optimizer.zero_grad()
        losses["loss"].mean().backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 10.0)
        optimizer.step()
        nll.append(losses["nll"].mean().item())
        if step == 1:
            # One step away from heads of zeros, everything learns.
            assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in objective.parameters())
    # Four seeds of each layout and likelihood ended at 172.3 to 172.6, and without gates at 175.0 to 175.4.
    assert np.mean(nll[-20:]) < 174
    with torch.no_grad():
        shut = torch.sigmoid(vae.likelihood.gate_logit(vae.heads(vae.encode(batch).mean))).expand(32, 60).mean(0)
    assert shut[:4].min() > 0.3
    assert shut[:4].max() < 0.7
    assert shut[4:].max() < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_is_the_one_that_was_trained(name, tmp_path: Path):
    plain = tiny.tiny_model().config
    stage = tiny.tiny_training(cells=96, validate_every=48, learning_rate=1e-2, warmup_cells=0)
    vae = dataclasses.replace(plain.vae, likelihood=name)
    config = RunConfig(**{**vars(plain), "vae": vae, "vae_training": stage, "prior_training": stage})
    model = tiny.tiny_model(config)
    model.train(accelerator=Accelerator(cpu=True))
    model.save(tmp_path / "model")
    loaded = ScLDM.load(tmp_path / "model", device="cpu")
    assert loaded.config == model.config
    first, second = (one.sample(30, steps=2, seed=5) for one in (model, loaded))
    assert first.X.nnz > 0
    assert (first.X != second.X).nnz == 0
    some = loaded.sample(30, steps=2, seed=5, genes=["GENE50", "GENE3"])
    assert (some.X != first[:, ["GENE50", "GENE3"]].X).nnz == 0
    inherited = NegativeBinomial(60, 3).state_dict().keys()
    assert loaded.trained.vae.likelihood.state_dict().keys() == {*inherited, "scaled_gate_logit"}

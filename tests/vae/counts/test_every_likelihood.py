"""What holds for every likelihood of the registry, and so for one that is added."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import numpy as np
import pytest
import scipy.sparse as sp
import tiny
import torch

from scldm.config import RunConfig, VAEConfig
from scldm.data.batch import CellBatch
from scldm.errors import UserError
from scldm.vae.counts.base import LOG_RATE, Heads, Likelihood
from scldm.vae.counts.registry import LIKELIHOODS
from scldm.vae.layouts import LAYOUTS
from scldm.vae.model import VAE
from scldm.vae.objective import VAEObjective

N_CELLS, N_GENES = 6, 12
NAMES = sorted(LIKELIHOODS)
WITH_DISPERSION = [name for name in NAMES if LIKELIHOODS[name].has_dispersion]


def likelihood_of(name: str, n_categories: int = 0) -> Likelihood:
    """Make a likelihood, away from where its parameters start."""
    likelihood = LIKELIHOODS[name].load()(N_GENES, n_categories)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return likelihood


def heads_of(likelihood: Likelihood, seed: int = 0) -> Heads:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(N_CELLS, N_GENES, generator=generator) for name in likelihood.heads}


#: The first store measured all genes but the last three, the second all but the first two.
MEASURED = torch.arange(N_GENES) < torch.tensor([[N_GENES - 3], [N_GENES]])
MEASURED[1, :2] = False
STORES = torch.tensor([0, 1, 1, 0, 1, 0])


def counts_of() -> np.ndarray:
    """Counts of genes that were measured; one cell has a single count."""
    counts = np.random.default_rng(0).poisson(2.0, (N_CELLS, N_GENES)) * MEASURED[STORES].numpy()
    counts[4] = 0
    counts[4, 6] = 1
    return counts


def batch_of(measured: torch.Tensor | None = MEASURED) -> CellBatch:
    batch = CellBatch.from_csr(sp.csr_matrix(counts_of()))
    return dataclasses.replace(batch, measured=measured, stores=None if measured is None else STORES)


def losses_and_gradients(
    likelihood: Likelihood, heads: Heads, batch: CellBatch, categories: torch.Tensor | None = None
) -> tuple[torch.Tensor, Heads, dict[str, torch.Tensor]]:
    """Loss of every cell; gradients by the heads, and by the parameters that the likelihood has."""
    leaves = {name: head.clone().requires_grad_() for name, head in heads.items()}
    nll = likelihood.negative_log_likelihood(leaves, batch, categories)
    likelihood.zero_grad()
    (torch.linspace(0.5, 2, N_CELLS) @ nll).backward()
    return (
        nll.detach(),
        {name: leaf.grad for name, leaf in leaves.items()},
        {name: p.grad.clone() for name, p in likelihood.named_parameters()},
    )


@pytest.mark.parametrize("by_category", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_gene_that_was_not_measured_is_not_there(name, by_category):
    """Whatever is decoded or learnt of it: the likelihood is the same to the bit, and its gradients are zero."""
    likelihood, absent = likelihood_of(name, 2 if by_category else 0), ~MEASURED[STORES]
    categories = torch.tensor([0, 1, -1, 0, 1, -1]) if by_category else None
    heads, batch = heads_of(likelihood), batch_of()
    nll, of_heads, of_parameters = losses_and_gradients(likelihood, heads, batch, categories)
    assert nll.isfinite().all()
    for of_head in of_heads.values():
        assert (of_head[absent] == 0).all()
        assert (of_head[~absent] != 0).any()
    other = {name: torch.where(absent, 50 * heads_of(likelihood, 1)[name], head) for name, head in heads.items()}
    again = losses_and_gradients(likelihood, other, batch, categories)
    for ours, theirs in zip((nll, *of_heads.values()), (again[0], *again[1].values()), strict=True):
        assert torch.equal(ours, theirs)
    # Gene 0 is measured by the first store alone, so its parameters concern no cell of the second one.
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter[..., 0] += 0.3
    moved = likelihood.negative_log_likelihood(heads, batch, categories)
    assert torch.equal(moved[STORES == 1], nll[STORES == 1])
    if of_parameters:
        assert not torch.equal(moved[STORES == 0], nll[STORES == 0])
    # And a gene that no store measured has no gradient at all.
    counts = counts_of()
    counts[:, 5] = 0
    without = MEASURED.clone()
    without[:, 5] = False
    batch = dataclasses.replace(CellBatch.from_csr(sp.csr_matrix(counts)), measured=without, stores=STORES)
    for of_parameter in losses_and_gradients(likelihood, heads, batch, categories)[2].values():
        assert (of_parameter[..., 5] == 0).all()
        assert (of_parameter[..., 6] != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_cells_of_two_stores_are_as_if_the_other_genes_did_not_exist(name):
    """The log rates of the measured genes share out the library size among themselves."""
    likelihood, batch = likelihood_of(name), batch_of()
    heads = heads_of(likelihood)
    together = likelihood.negative_log_likelihood(heads, batch)
    for store, measured in enumerate(MEASURED):
        cells = torch.eq(STORES, store)
        fewer = CellBatch.from_csr(sp.csr_matrix(counts_of()[cells][:, measured]))
        small = LIKELIHOODS[name].load()(int(measured.sum()))
        small.load_state_dict({key: value[measured] for key, value in likelihood.state_dict().items()})
        alone = small.negative_log_likelihood({key: head[cells][:, measured] for key, head in heads.items()}, fewer)
        torch.testing.assert_close(together[cells], alone)


@pytest.mark.parametrize("by_category", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_with_all_genes_measured_nothing_changes(name, by_category):
    likelihood = likelihood_of(name, 2 if by_category else 0)
    categories, heads = torch.tensor([0, 1, -1, 0, 1, -1]) if by_category else None, heads_of(likelihood)
    plain = losses_and_gradients(likelihood, heads, batch_of(None), categories)
    masked = losses_and_gradients(likelihood, heads, batch_of(torch.ones_like(MEASURED)), categories)
    assert torch.equal(plain[0], masked[0])
    for ours, theirs in zip(plain[1:], masked[1:], strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("name", NAMES)
def test_the_autoencoder_decodes_the_heads_that_are_asked_for(layout, name):
    """And trains on cells of two stores: what one did not measure has no gradient from its cells."""
    torch.manual_seed(0)
    vae = VAE(tiny.tiny_vae(layout=layout, likelihood=name, dropout=0.0), N_GENES)
    objective, batch = VAEObjective(vae).train(), batch_of()
    latents = torch.randn(N_CELLS, 2, 4, generator=torch.Generator().manual_seed(1))
    heads = vae.heads(latents)
    assert tuple(heads) == vae.likelihood.heads
    assert heads[LOG_RATE].shape == (N_CELLS, N_GENES)
    assert (vae.expected_counts(latents, batch.library_size).sum(1) <= batch.library_size * (1 + 1e-5)).all()
    noise = objective.draw_noise(N_CELLS, torch.Generator().manual_seed(0))
    objective(batch, noise)["loss"].mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())
    before = objective(batch, noise)["nll"]
    with torch.no_grad():
        for parameter in vae.likelihood.parameters():
            parameter[..., -1] += 0.3
    after = objective(batch, noise)["nll"]
    assert torch.equal(before[STORES == 0], after[STORES == 0])


def test_names_are_those_of_the_configuration():
    hints = get_type_hints(VAEConfig)
    assert get_args(hints["likelihood"]) == tuple(LIKELIHOODS)
    assert get_args(hints["layout"]) == tuple(LAYOUTS)
    for name in NAMES:
        assert LIKELIHOODS[name].load().heads[0] == LOG_RATE
    with pytest.raises(UserError, match=r"'vae.likelihood' is 'poison'; did you mean 'poisson'"):
        RunConfig.from_dict({"vae": {"likelihood": "poison"}})
    with pytest.raises(UserError, match=r"'vae.layout' is 'wild'; did you mean 'wide'"):
        RunConfig.from_dict({"vae": {"layout": "wild"}})


def test_only_a_likelihood_with_a_dispersion_may_let_it_depend_on_an_attribute():
    assert "negative_binomial" in WITH_DISPERSION
    for name in WITH_DISPERSION:
        assert VAEConfig(likelihood=name, dispersion_by="batch").dispersion_by == "batch"
    with pytest.raises(UserError, match=r"vae.dispersion_by has no effect on poisson counts"):
        VAEConfig(likelihood="poisson", dispersion_by="batch")

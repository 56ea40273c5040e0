from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scldm.data.batch import CellBatch
from scldm.vae.pooling import AttentionPooling, weighted_bags

N_CELLS, N_GENES = 5, 9


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture
def batch() -> CellBatch:
    """Cells of which one is empty, one expresses all genes, and one gene is expressed by none."""
    counts = np.random.default_rng(0).poisson(0.8, (N_CELLS, N_GENES))
    counts[1], counts[3], counts[3, 0] = 0, 2, 500
    counts[:, 4] = 0
    return CellBatch.from_csr(sp.csr_matrix(counts))


def test_bags_are_the_product_of_the_weights_and_each_table(batch):
    tables = randn(N_GENES, 4), randn(N_GENES, 3, seed=1)
    weights = torch.rand(len(batch.counts), dtype=torch.float64)

    def bags(*tables):
        return weighted_bags(batch.gene_ids, batch.cell_ids(), batch.offsets, weights, *tables)

    dense = torch.zeros(N_CELLS, N_GENES, dtype=torch.float64)
    dense[batch.cell_ids(), batch.gene_ids] = weights
    for bag, table in zip(bags(*tables), tables, strict=True):
        torch.testing.assert_close(bag, dense @ table)
    assert torch.autograd.gradcheck(bags, tables)


def test_a_gene_that_no_cell_expresses_gets_no_gradient(batch):
    table = randn(N_GENES, 4).detach().float().requires_grad_()
    (bag,) = weighted_bags(batch.gene_ids, batch.cell_ids(), batch.offsets, torch.rand(len(batch.counts)), table)
    (gradient,) = torch.autograd.grad(bag.square().sum(), table)
    absent = ~torch.isin(torch.arange(N_GENES), batch.gene_ids)
    assert absent.any()
    assert torch.equal((gradient == 0).all(dim=1), absent)


def test_pooling_is_softmax_attention_with_the_counts_as_a_bias():
    torch.manual_seed(0)
    n_points, heads, channels = 3, 2, 4
    pooling = AttentionPooling(40, n_points, heads, channels)
    with torch.no_grad():
        pooling.queries.mul_(20)
    # Cells with very different numbers of expressed genes.
    random, n_genes = np.random.default_rng(0), 40
    expressed = random.poisson(3.0, (5, n_genes)) * (random.random((5, n_genes)) < np.linspace(0.1, 0.9, 5)[:, None])
    expressed[:, 0] += 1
    batch = CellBatch.from_csr(sp.csr_matrix(expressed))
    counts = batch.dense(n_genes).double()
    cp10k = torch.log1p(counts / counts.sum(1, keepdim=True) * 1e4)
    # softmax(score + log weight) over the expressed genes: the log of a count's weight is an additive bias.
    scores = pooling.queries.double() @ pooling.keys.double().T
    logits = scores[None] + cp10k.log()[:, None, :]
    attention = logits.softmax(dim=-1)
    assert attention.max() > 0.3
    # What is stored of a value is its product with the gene's score.
    values = pooling.scored_values.double().unflatten(1, (n_points * heads, channels)) / scores.T.exp()[..., None]
    expected = torch.einsum("bsg,gsc->bsc", attention, values).flatten(1)

    pooled, magnitudes = pooling(batch)
    assert (pooled - expected).abs().max() < 1e-5 * expected.abs().max()
    assert pooling.n_magnitudes == magnitudes.shape[1] == n_points * heads + 1
    torch.testing.assert_close(magnitudes[:, :-1].double() + 6, logits.logsumexp(-1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(magnitudes[:, -1].double() + 6, counts.sum(1).log(), rtol=1e-5, atol=1e-5)

from __future__ import annotations

import torch

from scldm.vae.unpooling import AttentionUnpooling, fold_read_outs

N_GENES = 40


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def test_unpooling_is_softmax_attention_of_genes_over_slots_for_every_read_out():
    torch.manual_seed(0)
    n_slots, heads, channels = 3, 2, 4
    unpooling = AttentionUnpooling(N_GENES, n_slots, heads, channels, further=("gate_logit", "another"))
    assert all((read_out == 0).all() for read_out in unpooling.further.values())
    with torch.no_grad():
        unpooling.keys.mul_(20)
        for read_out in unpooling.further.values():
            read_out.normal_()
    features = torch.randn(6, n_slots, heads, channels)
    weights = unpooling.gene_weights()
    assert list(weights) == ["log_rate", "gate_logit", "another"]
    read_outs = {"log_rate": unpooling.read_out, **dict(unpooling.further.items())}
    for name, read_out in read_outs.items():
        expected = torch.zeros(6, N_GENES)
        for gene in range(N_GENES):
            for head in range(heads):
                attention = (unpooling.keys[:, head] @ unpooling.queries[head, :, gene]).softmax(0)
                read = torch.einsum("m,bmc->bc", attention, features[:, :, head])
                expected[:, gene] += n_slots * read @ read_out[head, :, gene]
        assert (features.flatten(1) @ weights[name] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_one_read_out_does_not_depend_on_the_others():
    torch.manual_seed(0)
    alone = AttentionUnpooling(N_GENES, 3, 2, 4)
    torch.manual_seed(0)
    together = AttentionUnpooling(N_GENES, 3, 2, 4, further=("gate_logit",))
    assert torch.equal(alone.gene_weights()["log_rate"], together.gene_weights()["log_rate"])
    assert set(alone.state_dict()) == {"queries", "keys", "read_out"}
    assert set(together.state_dict()) == {"queries", "keys", "read_out", "further.gate_logit"}


def test_folded_read_outs_are_the_outer_product_of_every_gene():
    weights, read_outs = randn(3, 2, N_GENES), randn(2, 4, N_GENES, seed=1)
    folded = fold_read_outs(weights, read_outs)
    expected = torch.einsum("mhg,hcg->mhcg", weights, read_outs).flatten(0, 2)
    torch.testing.assert_close(folded, expected)
    assert torch.autograd.gradcheck(fold_read_outs, (weights, read_outs))

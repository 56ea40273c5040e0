from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from scldm.data.batch import CellBatch
from scldm.vae.config import VAEConfig
from scldm.vae.model import VAE
from scldm.vae.wide import WideDecoder, WideEncoder

N_GENES, N_LATENTS, HEADS, TABLE = 40, 3, 2, 24
SIZES = {"n_latents": N_LATENTS, "width": 8, "n_layers": 1, "n_heads": 2, "n_cross_heads": HEADS, "table_width": TABLE}


def counts_of(n_cells: int = 5, seed: int = 0) -> np.ndarray:
    """Cells with very different numbers of expressed genes."""
    random = np.random.default_rng(seed)
    counts = random.poisson(3.0, (n_cells, N_GENES)) * (
        random.random((n_cells, N_GENES)) < np.linspace(0.1, 0.9, n_cells)[:, None]
    )
    counts[:, 0] += 1
    return counts


def batch_of(counts: np.ndarray) -> CellBatch:
    return CellBatch.from_csr(sp.csr_matrix(counts))


def encoder_of(**changes) -> WideEncoder:
    torch.manual_seed(0)
    encoder = WideEncoder(N_GENES, **{**SIZES, **changes})
    with torch.no_grad():
        # Queries start small; larger ones make the attention anything but uniform.
        encoder.pooling.queries.mul_(20)
    return encoder


def decoder_of(gene_totals: np.ndarray | None = None) -> WideDecoder:
    torch.manual_seed(0)
    decoder = WideDecoder(N_GENES, latent_channels=4, read_out_std=0.011, gene_totals=gene_totals, **SIZES)
    with torch.no_grad():
        decoder.unpooling.keys.mul_(20)
    return decoder


def latents_of(n_cells: int = 4) -> torch.Tensor:
    return torch.randn(n_cells, N_LATENTS, 4, generator=torch.Generator().manual_seed(1))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


# Pooling ---------------------------------------------------------------------------------------------------------


def test_extreme_scores_stay_finite():
    pooling = encoder_of().pooling
    with torch.no_grad():
        pooling.queries.mul_(1e4)
    pooled, magnitudes = pooling(batch_of(counts_of()))
    (pooled.sum() + magnitudes.sum()).backward()
    assert pooled.isfinite().all()
    assert magnitudes.isfinite().all()
    assert pooling.scored_values.grad.isfinite().all()


def test_latents_do_not_depend_on_batch_mates_or_their_order():
    encoder, counts = encoder_of(), counts_of()
    together = encoder(batch_of(counts))
    assert together.shape == (5, N_LATENTS, 8)
    for i in range(5):
        assert relative_error(encoder(batch_of(counts[i : i + 1]))[0], together[i]) < 1e-5
    assert relative_error(encoder(batch_of(counts[::-1])), together.flip(0)) < 1e-5


def test_latents_do_not_depend_on_the_order_of_genes():
    encoder, batch = encoder_of(), batch_of(counts_of())
    random = np.random.default_rng(3)
    lengths = batch.offsets.diff().tolist()
    order = np.concatenate(
        [start + random.permutation(n) for start, n in zip(batch.offsets.tolist(), lengths, strict=False)]
    )
    shuffled = CellBatch(**{**vars(batch), "gene_ids": batch.gene_ids[order], "counts": batch.counts[order]})
    assert not torch.equal(shuffled.gene_ids, batch.gene_ids)
    assert relative_error(encoder(shuffled), encoder(batch)) < 1e-5


def test_latents_move_when_counts_do():
    encoder, counts = encoder_of(), counts_of()
    before = encoder(batch_of(counts))
    changed = np.where(counts > 0, np.random.default_rng(5).integers(1, 500, counts.shape), 0)
    assert relative_error(encoder(batch_of(changed)), before) > 0.05
    one_more = counts.copy()
    one_more[:, 0] += 5
    assert (encoder(batch_of(one_more)) - before).abs().amax(dim=(1, 2)).min() > 1e-4
    # Ten times as deep with the same proportions is another cell, too.
    assert relative_error(encoder(batch_of(10 * counts)), before) > 1e-3


def test_relabelled_genes_with_relabelled_tables_are_the_same_cells():
    encoder, counts = encoder_of(), counts_of()
    before = encoder(batch_of(counts))
    order = torch.randperm(N_GENES, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for table in (encoder.pooling.keys, encoder.pooling.scored_values):
            table.copy_(table[order].clone())
    assert relative_error(encoder(batch_of(counts[:, order.numpy()])), before) < 1e-5


def test_dropped_channels_do_not_reach_the_latents():
    encoder, batch = encoder_of(dropout=0.25), batch_of(counts_of())
    plain = encoder(batch)
    assert torch.equal(encoder(batch, None), plain)
    # Uniform numbers of at least the dropout keep a channel, scaled up by 1 / (1 - 0.25).
    pooled, magnitudes = encoder.pooling(batch)
    uniform = torch.rand(5, TABLE, generator=torch.Generator().manual_seed(0))
    kept = encoder.pooled_norm(pooled) * (uniform >= 0.25) / 0.75
    mixed = encoder.mix_output(torch.nn.functional.silu(encoder.mix_input(torch.cat([kept, magnitudes], 1))))
    tokens = mixed.unflatten(1, (N_LATENTS, 8)) + encoder.positions
    expected = encoder.output_norm(encoder.blocks[0](tokens))
    assert relative_error(encoder(batch, uniform), expected) < 1e-5
    assert relative_error(encoder(batch, uniform), plain) > 1e-2


# Un-pooling ------------------------------------------------------------------------------------------------------


def test_features_have_a_fixed_scale_so_that_only_read_outs_decide_how_far_rates_move():
    decoder, latents = decoder_of(), latents_of()
    features = decoder.features(latents)
    assert features.std(0).min() > 0
    torch.testing.assert_close(features.square().mean(1), torch.ones(len(features)), rtol=1e-3, atol=0)
    with torch.no_grad():
        decoder.mix[3].weight.mul_(10)
        decoder.mix[3].bias.mul_(10)
    torch.testing.assert_close(decoder.features(latents), features, rtol=1e-3, atol=1e-3)


def test_rates_start_at_the_proportions_of_the_training_cells():
    totals = np.arange(N_GENES, dtype=np.float64) ** 2
    decoder = decoder_of(totals)
    share = (totals + 0.5) / (totals + 0.5).sum()
    torch.testing.assert_close(decoder.bias.exp(), torch.tensor(share, dtype=torch.float32))
    # The read-outs start small, so the rates start near the bias in every cell.
    started = decoder(latents_of())["log_rate"].softmax(-1)
    assert np.corrcoef(started.detach().log().numpy().ravel(), np.tile(np.log(share), 4))[0, 1] > 0.9
    assert torch.equal(decoder_of().bias, torch.full((N_GENES,), 1 / N_GENES).log())


def test_rates_depend_on_every_latent_token_but_not_on_other_cells():
    decoder, latents = decoder_of(), latents_of()
    rates = decoder(latents)["log_rate"]
    assert relative_error(decoder(latents[1:2])["log_rate"], rates[1:2]) < 1e-5
    for token in range(N_LATENTS):
        moved = latents.clone()
        moved[:, token] += 1.0
        assert relative_error(decoder(moved)["log_rate"], rates) > 1e-4


# Attributes ------------------------------------------------------------------------------------------------------


def attributes_of(categorical: list[int], continuous: list[float]) -> CellBatch:
    counts = np.repeat(counts_of(1, seed=3), len(categorical), axis=0)
    codes, values = np.array(categorical)[:, None], np.array(continuous, dtype=np.float32)[:, None]
    return CellBatch.from_csr(sp.csr_matrix(counts), codes, values)


def test_attributes_move_the_latents_where_they_are_known():
    encoder = encoder_of(n_categories=(3,), n_continuous=1)
    tokens = encoder(attributes_of([0, 1, -1, -1, 0], [np.nan, np.nan, np.nan, 0.5, 0.5]))
    distances = torch.cdist(tokens.flatten(1), tokens.flatten(1))
    assert (distances + torch.eye(5) > 1e-4).all()
    assert not tokens.isnan().any()


def test_hidden_attributes_are_unknown_ones():
    encoder = encoder_of(n_categories=(3,), n_continuous=1)
    batch, unknown = attributes_of([0, 1, 2], [0.1, 0.2, 0.3]), attributes_of([-1] * 3, [np.nan] * 3)
    torch.testing.assert_close(encoder(batch.hide_attributes()), encoder(unknown))
    hidden = torch.tensor([[True, False], [False, True], [False, False]])
    some = attributes_of([-1, 1, 2], [0.1, np.nan, 0.3])
    torch.testing.assert_close(encoder(batch.hide_attributes(hidden)), encoder(some))
    assert batch.categorical.tolist() == [[0], [1], [2]], "the batch itself stays as it was"


def test_rates_are_float32_under_autocast():
    """In bfloat16, with its three digits, the rates of two genes that differ by less would be the same."""
    torch.manual_seed(0)
    vae = VAE(VAEConfig(), 300).eval()
    latents = torch.randn(16, vae.config.n_latents, vae.config.latent_channels)
    features = vae.decoder.features(latents).detach()
    vae.decoder.features = lambda latents: features.bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rates = vae.decoder(latents)["log_rate"]
    assert rates.dtype == torch.float32
    with torch.no_grad():
        exact = vae.decoder.bias + features.bfloat16().float() @ vae.decoder.unpooling.gene_weights()["log_rate"]
    torch.testing.assert_close(rates, exact, rtol=1e-6, atol=1e-6)

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad

from scldm.config import VAEConfig
from scldm.data.batch import CellBatch
from scldm.vae.model import VAE
from scldm.vae.published import PublishedDecoder, PublishedEncoder, gene_table
from scldm.vae.published_weights import convert_published_vae_state

FIXTURE = Path(__file__).parents[1] / "fixtures" / "published_reference.npz"
N_GENES, WIDTH, N_LATENTS, CHANNELS = 40, 16, 4, 6


def counts_of(n_cells: int = 5, seed: int = 0) -> np.ndarray:
    """Cells with very different numbers of expressed genes."""
    generator = np.random.default_rng(seed)
    counts = generator.poisson(3.0, (n_cells, N_GENES)) * (
        generator.random((n_cells, N_GENES)) < np.linspace(0.1, 0.9, n_cells)[:, None]
    )
    counts[:, 0] += 1
    return counts


def batch_of(counts: np.ndarray) -> CellBatch:
    return CellBatch.from_csr(sp.csr_matrix(counts))


def build_encoder(gene_tokens: str = "film", *, mask_padding: bool = True) -> PublishedEncoder:
    torch.manual_seed(0)
    return PublishedEncoder(
        gene_table(N_GENES, WIDTH),
        N_LATENTS,
        n_layers=1,
        n_heads=2,
        n_cross_heads=2,
        gene_tokens=gene_tokens,
        mask_padding=mask_padding,
    )


def build_decoder(**options) -> PublishedDecoder:
    torch.manual_seed(0)
    return PublishedDecoder(
        gene_table(N_GENES, WIDTH), CHANNELS, n_layers=1, n_heads=2, n_cross_heads=2, gene_chunk=16, **options
    )


def latents_of(n_cells: int = 3) -> torch.Tensor:
    return torch.randn(n_cells, N_LATENTS, CHANNELS, generator=torch.Generator().manual_seed(2))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


TOKENS = ["film", "log1p", "projconcat"]


@pytest.mark.parametrize("gene_tokens", TOKENS)
def test_latents_do_not_depend_on_batch_mates(gene_tokens):
    encoder, counts = build_encoder(gene_tokens), counts_of()
    together = encoder(batch_of(counts))
    assert together.shape == (5, N_LATENTS, WIDTH)
    for i in range(5):
        assert relative_error(encoder(batch_of(counts[i : i + 1]))[0], together[i]) < 1e-5


@pytest.mark.parametrize("gene_tokens", TOKENS)
def test_latents_do_not_depend_on_pad_length_or_what_is_under_the_padding(gene_tokens):
    encoder, batch = build_encoder(gene_tokens), batch_of(counts_of())
    genes, counts, mask = batch.padded()
    expected = encoder(batch)
    more = (genes.shape[0], 23)
    longer = encoder.pool(
        torch.cat([genes, torch.full(more, 7)], 1),
        torch.cat([counts, torch.full(more, 9.0)], 1),
        torch.cat([mask, torch.zeros(more, dtype=torch.bool)], 1),
        batch.library_size,
    )
    assert relative_error(longer, expected) < 1e-5


def test_unmasked_padding_reaches_the_latents():
    counts = counts_of()
    encoder = build_encoder("projconcat", mask_padding=False)
    together = encoder(batch_of(counts))
    alone = encoder(batch_of(counts[:1]))
    assert relative_error(alone[0], together[0]) > 1e-2


@pytest.mark.parametrize("gene_tokens", TOKENS)
def test_latents_do_not_depend_on_the_order_of_genes(gene_tokens):
    encoder, batch = build_encoder(gene_tokens), batch_of(counts_of())
    genes, counts, mask = batch.padded()
    order = torch.randperm(genes.shape[1], generator=torch.Generator().manual_seed(3))
    shuffled = encoder.pool(genes[:, order], counts[:, order], mask[:, order], batch.library_size)
    assert relative_error(shuffled, encoder(batch)) < 1e-5


@pytest.mark.parametrize(("gene_tokens", "sees_counts"), [("film", True), ("projconcat", True), ("log1p", False)])
def test_latents_move_when_counts_do(gene_tokens, sees_counts):
    counts = counts_of()
    changed = np.where(counts > 0, np.random.default_rng(5).integers(1, 500, counts.shape), 0)
    encoder = build_encoder(gene_tokens)
    moved = relative_error(encoder(batch_of(changed)), encoder(batch_of(counts)))
    # The published default normalises after multiplying by log1p(count), and sees only which genes are on.
    assert moved > 0.05 if sees_counts else moved < 1e-4


def test_film_sees_one_count_and_depth():
    counts = counts_of()
    encoder = build_encoder()
    one_more = counts.copy()
    one_more[:, 0] += 5
    before = encoder(batch_of(counts))
    assert (encoder(batch_of(one_more)) - before).abs().amax(dim=(1, 2)).min() > 1e-4
    batch = batch_of(counts)
    deeper = encoder.pool(*batch.padded(), 10 * batch.library_size)
    assert relative_error(deeper, before) > 1e-3


@pytest.mark.parametrize("gene_tokens", TOKENS)
def test_empty_cell_is_finite_and_leaves_the_others_alone(gene_tokens):
    encoder, counts = build_encoder(gene_tokens), counts_of()
    with_empty = counts.copy()
    with_empty[2] = 0
    latents = encoder(batch_of(with_empty))
    assert latents.isfinite().all()
    others = [0, 1, 3, 4]
    assert relative_error(latents[others], encoder(batch_of(counts))[others]) < 1e-5
    latents.sum().backward()
    assert encoder.gene_embedding.weight.grad.isfinite().all()


def test_padding_token_learns_only_when_it_is_seen():
    for mask_padding in (True, False):
        encoder = build_encoder(mask_padding=mask_padding)
        encoder(batch_of(counts_of())).square().sum().backward()
        assert (encoder.gene_embedding.weight.grad[-1].abs().sum() > 0) == (not mask_padding)


def test_unknown_gene_tokens_are_refused():
    with pytest.raises(ValueError, match="'film', 'log1p' or 'projconcat', got 'sum'"):
        build_encoder("sum")


def test_rates_do_not_depend_on_the_chunk():
    decoder = build_decoder(heads=("log_rate", "gate_logit"))
    torch.nn.init.normal_(decoder.further["gate_logit"].weight)
    chunked = decoder(latents_of())
    decoder.gene_chunk = 1000
    whole = decoder(latents_of())
    assert list(whole) == ["log_rate", "gate_logit"]
    for name, head in whole.items():
        assert head.shape == (3, N_GENES)
        assert relative_error(chunked[name], head) < 1e-5


def test_further_heads_are_linear_maps_that_start_at_zero_and_leave_the_rates_alone():
    alone, together = build_decoder(), build_decoder(heads=("log_rate", "gate_logit"))
    heads = together(latents_of())
    assert torch.equal(heads["log_rate"], alone(latents_of())["log_rate"])
    assert (heads["gate_logit"] == 0).all()
    with torch.no_grad():
        together.further["gate_logit"].weight.copy_(together.log_rate.weight)
    assert torch.equal(together(latents_of())["gate_logit"], heads["log_rate"])
    assert set(together.state_dict()) - set(alone.state_dict()) == {"further.gate_logit.weight"}


def test_rates_depend_on_every_latent_token_but_not_on_other_cells():
    decoder, latents = build_decoder(), latents_of()
    rates = decoder(latents)["log_rate"]
    assert relative_error(decoder(latents[1:2])["log_rate"], rates[1:2]) < 1e-5
    for token in range(N_LATENTS):
        moved = latents.clone()
        moved[:, token] += torch.linspace(-1, 1, CHANNELS)
        assert relative_error(decoder(moved)["log_rate"], rates) > 1e-4


def test_recomputing_in_training_changes_no_gradient():
    gradients = []
    for training in (True, False):
        decoder = build_decoder().train(training)
        decoder(latents_of())["log_rate"].log_softmax(-1)[:, ::3].sum().backward()
        gradients.append({name: p.grad for name, p in decoder.named_parameters()})
        gradients[-1]["genes"] = decoder._shared[0].weight.grad
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_gene_table_is_shared_and_registered_once(tmp_path):
    torch.manual_seed(0)
    config = VAEConfig(layout="published", n_latents=4, latent_channels=6, width=16, n_heads=2, n_cross_heads=2)
    vae = VAE(config, N_GENES)
    latents = latents_of()
    names = [name for name, value in vae.state_dict().items() if len(value) == N_GENES + 1]
    assert names == ["encoder.gene_embedding.weight"]
    save_file(vae.state_dict(), tmp_path / "vae.safetensors")

    # A copy (such as averaged weights) shares its own table, not that of the original.
    copy = deepcopy(vae)
    before = copy.heads(latents)["log_rate"]
    with torch.no_grad():
        vae.encoder.gene_embedding.weight.add_(torch.randn(N_GENES + 1, 16))
    assert relative_error(vae.heads(latents)["log_rate"], before) > 1e-2
    assert torch.equal(copy.heads(latents)["log_rate"], before)
    vae.load_state_dict(load_file(tmp_path / "vae.safetensors"))
    assert torch.equal(vae.heads(latents)["log_rate"], before)


@pytest.fixture(scope="module")
def reference():
    with np.load(FIXTURE) as file:
        return {name: torch.from_numpy(file[name]) for name in file if not name.startswith("dit")}


@dataclass(frozen=True, eq=False)
class Rectangle(CellBatch):
    """Batch with padding, or zero counts, of the reference's own making."""

    tokens: tuple[torch.Tensor, ...] = ()

    def padded(self):
        return self.tokens


def published_vae(reference, gene_tokens: str) -> VAE:
    config = VAEConfig(
        layout="published",
        n_latents=8,
        latent_channels=16,
        width=32,
        n_layers=2,
        n_heads=8,
        n_cross_heads=4,
        gene_tokens=gene_tokens,
        mask_padding=False,
        bottleneck="layernorm",
    )
    vae = VAE(config, 60)
    vae.decoder.gene_chunk = 25
    prefix = f"vae_{gene_tokens}/state/"
    state = {name.removeprefix(prefix): value for name, value in reference.items() if name.startswith(prefix)}
    vae.load_state_dict(convert_published_vae_state(state))
    return vae.eval()


@torch.no_grad()
@pytest.mark.parametrize("gene_tokens", ["log1p", "projconcat"])
def test_published_autoencoder(reference, gene_tokens):
    vae = published_vae(reference, gene_tokens)
    batch = CellBatch.from_csr(sp.csr_matrix(reference["input/counts"].numpy()))
    library_size = reference["input/library_size"][:, 0]
    assert torch.equal(batch.library_size, library_size)

    def encode(genes, counts):
        # Published genes count from 1, and 0 is the padding.
        tokens = (reference[f"input/{genes}"] - 1, reference[f"input/{counts}"], reference[f"input/{genes}"] > 0)
        return vae.encode(Rectangle(**vars(batch), tokens=tokens)).mean

    latents = encode("genes_expressed_padded", "counts_expressed_padded")
    ours = {
        "latents": latents,
        "latents_all_genes": encode("genes", "counts"),
        "mu": vae.expected_counts(latents, library_size),
        "theta": vae.likelihood.inverse_dispersion().expand(5, -1),
    }
    for name, value in ours.items():
        assert relative_error(value, reference[f"vae_{gene_tokens}/output/{name}"]) < 1e-5, name


@torch.no_grad()
def test_jagged_batch_is_the_published_one_padded_less(reference):
    vae = published_vae(reference, "projconcat")
    batch = CellBatch.from_csr(sp.csr_matrix(reference["input/counts"].numpy()))
    # The published batch is padded to 32 tokens, a jagged one to its longest cell.
    padded = [x[:, :32] for x in (pad(x, (0, 32)) for x in batch.padded())]
    latents = vae.encode(Rectangle(**vars(batch), tokens=tuple(padded))).mean
    assert relative_error(latents, reference["vae_projconcat/output/latents"]) < 1e-5


def test_positions_that_are_not_zero_are_refused(reference):
    prefix = "vae_log1p/state/"
    state = {name.removeprefix(prefix): value for name, value in reference.items() if name.startswith(prefix)}
    state["encoder.pos_embed"] = torch.ones(1, 8, 32)
    with pytest.raises(ValueError, match="pos_embed is not zero"):
        convert_published_vae_state(state)

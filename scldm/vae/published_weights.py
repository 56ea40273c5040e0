"""Weights of a published autoencoder (arXiv 2511.02986), renamed to ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scldm.vae.counts.negative_binomial import NegativeBinomial

__all__ = ["convert_published_vae_state"]


def convert_published_vae_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a published autoencoder to those of a :class:`~scldm.vae.model.VAE`.

    The VAE is one with ``layout="published"``, ``bottleneck="layernorm"`` and ``mask_padding=False``. The published
    gene table starts with the padding token and ours ends with it: our gene ``i`` is theirs ``i + 1``.

    Parameters
    ----------
    state
        Published parameter names and values.

    Returns
    -------
    Our parameter names and values, for ``load_state_dict``; the head's bias is dropped, since rates are a softmax.

    Raises
    ------
    ValueError
        When the encoder has positions that are not 0: latent tokens here have none.
    """
    positions = state.get("encoder.pos_embed")
    if positions is not None and bool(positions.count_nonzero()):
        raise ValueError("encoder.pos_embed is not zero; latent tokens of the published layout have no positions here")
    converted = {
        "encoder.gene_embedding.weight": torch.roll(state["input_layer.gene_embedding.weight"], -1, dims=0),
        "encoder.inducing_points": state["encoder.ca_layer.inducing_points"][None],
        "bottleneck.weight": state["encoder.encoder_latent_input.0.weight"],
        "decoder.input.weight": state["decoder.decoder_latent_input.1.weight"],
        "decoder.log_rate.weight": state["decoder_head.params.weight"],
        "likelihood.scaled_log_theta": state["decoder_head.theta.weight"][1:, 0] / NegativeBinomial.STEP_FACTOR,
    }
    if "input_layer.projection.mix.weight" in state:
        converted |= {
            f"encoder.tokens.mix.{kind}": state[f"input_layer.projection.mix.{kind}"] for kind in ("weight", "bias")
        }
    return {
        **converted,
        **_cross_attention_block(state, "encoder.ca_layer", "encoder.pooling"),
        **_self_attention_blocks(state, "encoder.encoder_layers", "encoder.blocks"),
        **_self_attention_blocks(state, "decoder.decoder_layers", "decoder.blocks"),
        **_cross_attention_block(state, "decoder.decoder_cross_attention", "decoder.unpooling"),
    }


def _norms_and_feed_forward(
    state: Mapping[str, Tensor], theirs: str, ours: str, norms: Mapping[str, str]
) -> dict[str, Tensor]:
    converted = {
        f"{ours}.{our_norm}.{kind}": state[f"{theirs}.{their_norm}.{kind}"]
        for our_norm, their_norm in norms.items()
        for kind in ("weight", "bias")
    }
    gate, value = state[f"{theirs}.mlp.w1.weight"], state[f"{theirs}.mlp.w2.weight"]
    converted[f"{ours}.feed_forward.gate_value.weight"] = torch.cat([gate, value])
    converted[f"{ours}.feed_forward.output.weight"] = state[f"{theirs}.mlp.c_proj.weight"]
    converted[f"{ours}.attention.output.weight"] = state[f"{theirs}.attn.c_proj.weight"]
    return converted


def _cross_attention_block(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    norms = {"query_norm": "ln_1q", "token_norm": "ln_1", "feed_forward_norm": "ln_2"}
    converted = _norms_and_feed_forward(state, theirs, ours, norms)
    converted[f"{ours}.attention.query.weight"] = state[f"{theirs}.attn.c_attn_q.weight"]
    converted[f"{ours}.attention.key_value.weight"] = state[f"{theirs}.attn.c_attn.weight"]
    return converted


def _self_attention_blocks(state: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    norms = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}
    n_layers = len({name.split(".")[2] for name in state if name.startswith(f"{theirs}.")})
    converted: dict[str, Tensor] = {}
    for i in range(n_layers):
        converted |= _norms_and_feed_forward(state, f"{theirs}.{i}", f"{ours}.{i}", norms)
        converted[f"{ours}.{i}.attention.query_key_value.weight"] = state[f"{theirs}.{i}.attn.c_attn.weight"]
    return converted

"""Diffusion Transformer over latent tokens and sequencing depth, conditioned on time and attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from scldm.nn.attention import SelfAttention, SwiGLU
from scldm.nn.dropout import CellDropout
from scldm.nn.embeddings import AttributeEmbedding, TimeEmbedding, sinusoidal_positions
from scldm.prior.state import pack, packed_size, unpack

__all__ = ["DiT", "DiTBlock", "convert_published_dit_state"]


def _modulated(
    tokens: Float[Tensor, "cells tokens width"],
    scale: Float[Tensor, "cells 1 width"],
    shift: Float[Tensor, "cells 1 width"],
) -> Float[Tensor, "cells tokens width"]:
    return torch.addcmul(shift, tokens, 1 + scale)


class DiTBlock(nn.Module):
    """Transformer block whose norms and branches are scaled, shifted and gated by the condition (adaLN-zero).

    Parameters
    ----------
    width, n_heads
        As in :class:`~scldm.nn.attention.SelfAttention`.
    attention_bias
        Whether the attention projections have biases; the SwiGLU has none.
    eps
        Added to the variance in the layer norms.
    dropout
        Share of the channels dropped at the end of each branch in training.
    number
        Of this block among others, which have other dropout masks.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        *,
        attention_bias: bool = True,
        eps: float = 1e-6,
        dropout: float = 0.0,
        number: int = 0,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=eps, elementwise_affine=False)
        self.attention = SelfAttention(width, n_heads, bias=attention_bias)
        self.feed_forward = SwiGLU(width)
        self.modulation = nn.Linear(width, 6 * width)
        self.drop_attended, self.drop_fed = CellDropout(dropout, 2 * number), CellDropout(dropout, 2 * number + 1)

    def forward(
        self,
        tokens: Float[Tensor, "cells tokens width"],
        condition: Float[Tensor, "cells width"],
        dropout_seeds: Int64[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells tokens width"]:
        """Update the tokens of every cell; ``condition`` has passed its SiLU already."""
        modulation = self.modulation(condition)[:, None, :].chunk(6, dim=-1)
        attention_scale, attention_shift, attention_gate, feed_scale, feed_shift, feed_gate = modulation
        attended = self.attention(_modulated(self.norm(tokens), attention_scale, attention_shift))
        tokens = torch.addcmul(tokens, attention_gate, self.drop_attended(attended, dropout_seeds))
        fed = self.feed_forward(_modulated(self.norm(tokens), feed_scale, feed_shift))
        return torch.addcmul(tokens, feed_gate, self.drop_fed(fed, dropout_seeds))


class DiT(nn.Module):
    """Network that gives the velocity of the joint state of latents and depth (Peebles & Xie, 2023).

    States and velocities are packed (:mod:`scldm.prior.state`); the depth becomes one more token, with its
    own projections and position. A network without depth, as the published one is, takes the latents alone.

    Parameters
    ----------
    n_latents, latent_channels
        Latent tokens of a cell and their channels.
    width, n_layers, n_heads
        Of the transformer.
    n_categories
        Number of categories of every categorical attribute.
    n_continuous
        Number of continuous attributes.
    with_depth
        Whether the state has a depth.
    time_scale
        What time in [0, 1] is multiplied by before its sinusoids; 1.0 is what the published model does.
    attention_bias, eps, dropout
        As in :class:`DiTBlock`.
    """

    positions: Tensor

    def __init__(
        self,
        n_latents: int,
        latent_channels: int,
        width: int,
        n_layers: int,
        n_heads: int,
        n_categories: Sequence[int] = (),
        n_continuous: int = 0,
        *,
        with_depth: bool = True,
        time_scale: float = 1000.0,
        attention_bias: bool = True,
        eps: float = 1e-6,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.n_latents = n_latents
        self.latent_channels = latent_channels
        self.with_depth = with_depth
        #: Numbers of a cell's latents, and of its state.
        self.latent_size = n_latents * latent_channels
        self.state_size = packed_size(self.latent_size) if with_depth else self.latent_size

        self.latent_input = nn.Linear(latent_channels, width)
        self.latent_output = nn.Linear(width, latent_channels)
        if with_depth:
            self.depth_input = nn.Linear(1, width)
            self.depth_output = nn.Linear(width, 1)
            self.depth_known = nn.Parameter(torch.empty(width))
        # Fixed by the sizes, hence nothing to save.
        self.register_buffer("positions", sinusoidal_positions(n_latents + int(with_depth), width), persistent=False)
        self.time = TimeEmbedding(width, scale=time_scale)
        self.attributes = AttributeEmbedding(n_categories, n_continuous, width)
        self.blocks = nn.ModuleList(
            DiTBlock(width, n_heads, attention_bias=attention_bias, eps=eps, dropout=dropout, number=i)
            for i in range(n_layers)
        )
        self.final_norm = nn.LayerNorm(width, eps=eps, elementwise_affine=False)
        self.final_modulation = nn.Linear(width, 2 * width)
        self._initialise()

    def _initialise(self) -> None:
        embeddings = {*self.time.modules(), *self.attributes.modules()}
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in embeddings:
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # adaLN-zero: every block starts as the identity and the velocity as zero.
        zero: list[nn.Linear] = [self.latent_output, self.final_modulation]
        zero += [block.modulation for block in self.blocks if isinstance(block, DiTBlock)]
        if self.with_depth:
            zero.append(self.depth_output)
            nn.init.normal_(self.depth_known, std=0.02)
        for layer in zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        state: Float[Tensor, "cells state"],
        time: Float[Tensor, " cells"],
        categorical: Int64[Tensor, "cells categorical"],
        continuous: Float[Tensor, "cells continuous"],
        depth_known: Bool[Tensor, " cells"] | None = None,
        dropout_seeds: Int64[Tensor, " cells"] | None = None,
    ) -> Float[Tensor, "cells state"]:
        """Return the velocity of every cell.

        Parameters
        ----------
        state
            Packed states, at ``time`` of their paths.
        time
            In [0, 1], 0 is noise.
        categorical
            Category codes, -1 where an attribute is not given.
        continuous
            Standardised values, NaN where an attribute is not given.
        depth_known
            Cells whose depth in ``state`` is not on a path but given: there the network models p(latents | depth), and
            the velocity of the depth is exactly 0. None means no cell.
        dropout_seeds
            What the dropout masks of every cell follow from; None drops nothing.
        """
        condition = nn.functional.silu(self.time(time) + self.attributes(categorical, continuous))
        tokens = self._tokens(state, depth_known)
        for block in self.blocks:
            tokens = block(tokens, condition, dropout_seeds)
        scale, shift = self.final_modulation(condition)[:, None, :].chunk(2, dim=-1)
        tokens = _modulated(self.final_norm(tokens), scale, shift)
        return self._velocity(tokens, depth_known).to(state.dtype)

    def _tokens(
        self, state: Float[Tensor, "cells state"], depth_known: Bool[Tensor, " cells"] | None
    ) -> Float[Tensor, "cells tokens width"]:
        if state.shape[1] != self.state_size:
            raise ValueError(f"expected a state of {self.state_size} numbers per cell, got {state.shape[1]}")
        if not self.with_depth:
            if depth_known is not None:
                raise ValueError("depth_known was given to a network whose state has no depth")
            return self._latent_tokens(state) + self.positions
        latents, depth = unpack(state)
        depth = self.depth_input(depth[:, None])
        if depth_known is not None:
            depth = torch.where(depth_known[:, None], depth + self.depth_known, depth)
        return torch.cat([self._latent_tokens(latents), depth[:, None, :]], dim=1) + self.positions

    def _latent_tokens(self, latents: Float[Tensor, "cells latents"]) -> Float[Tensor, "cells tokens width"]:
        return self.latent_input(rearrange(latents, "b (m c) -> b m c", c=self.latent_channels))

    def _velocity(
        self, tokens: Float[Tensor, "cells tokens width"], depth_known: Bool[Tensor, " cells"] | None
    ) -> Float[Tensor, "cells state"]:
        latents = rearrange(self.latent_output(tokens[:, : self.n_latents]), "b m c -> b (m c)")
        if not self.with_depth:
            return latents
        depth = self.depth_output(tokens[:, self.n_latents])[:, 0]
        if depth_known is not None:
            depth = torch.where(depth_known, 0.0, depth)
        return pack(latents, depth)


def convert_published_dit_state(
    state: Mapping[str, Tensor], attribute_names: Sequence[str], *, n_layers: int | None = None
) -> dict[str, Tensor]:
    """Rename the parameters of a published denoiser to those of a :class:`DiT`.

    Load the result with ``load_state_dict`` into a ``DiT`` with ``with_depth=False``, ``time_scale=1.0`` and
    ``eps=1e-8``.

    Parameters
    ----------
    state
        Published parameter names and values.
    attribute_names
        Published names of the attributes, in the order of our categorical attributes.
    n_layers
        Number of blocks; None counts them.

    Returns
    -------
    Our parameter names and values; values are shared with ``state`` where nothing is packed anew.
    """
    if n_layers is None:
        n_layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    renamed = {
        "latent_input": "input_proj",
        "time.input": "t_embedder.mlp.0",
        "time.output": "t_embedder.mlp.2",
        "latent_output": "final_layer.linear",
    }
    for i in range(n_layers):
        renamed[f"blocks.{i}.attention.query_key_value"] = f"blocks.{i}.attn.c_attn"
        renamed[f"blocks.{i}.attention.output"] = f"blocks.{i}.attn.c_proj"
        renamed[f"blocks.{i}.modulation"] = f"blocks.{i}.adaln_modulation.1"
    converted = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for ours, theirs in renamed.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in state
    }
    for i in range(n_layers):
        gate, value = state[f"blocks.{i}.mlp.w1.weight"], state[f"blocks.{i}.mlp.w2.weight"]
        converted[f"blocks.{i}.feed_forward.gate_value.weight"] = torch.cat([gate, value])
        converted[f"blocks.{i}.feed_forward.output.weight"] = state[f"blocks.{i}.mlp.c_proj.weight"]
    for kind in ("weight", "bias"):
        # The published final layer shifts with the first half; ours scales with it, as all blocks do.
        shift, scale = state[f"final_layer.adaln_modulation.1.{kind}"].chunk(2)
        converted[f"final_modulation.{kind}"] = torch.cat([scale, shift])
    for k, name in enumerate(attribute_names):
        converted[f"attributes.tables.{k}.weight"] = state[f"class_embeddings.{name}.weight"]
    return converted

from __future__ import annotations

import pytest
import torch

from scldm.nn.attention import (
    CrossAttention,
    CrossAttentionBlock,
    SelfAttention,
    SelfAttentionBlock,
    SwiGLU,
    swiglu_width,
)

WIDTH, HEADS = 16, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("width", "hidden"), [(32, 88), (64, 172), (256, 684)])
def test_swiglu_width_is_the_published_one(width, hidden):
    assert swiglu_width(width) == hidden


def test_swiglu_is_its_equation():
    layer, x = SwiGLU(WIDTH), torch.randn(5, WIDTH)
    gate, value = layer.gate_value.weight.chunk(2)
    assert len(gate) == swiglu_width(WIDTH)
    expected = (x @ gate.T) * torch.sigmoid(x @ gate.T) * (x @ value.T) @ layer.output.weight.T
    torch.testing.assert_close(layer(x), expected)


def reference_attention(query, key, value, n_heads):
    """Softmax attention one head at a time; heads are contiguous slices of the channels."""
    heads = []
    for q, k, v in zip(query.chunk(n_heads, -1), key.chunk(n_heads, -1), value.chunk(n_heads, -1), strict=True):
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        heads.append(scores.softmax(-1) @ v)
    return torch.cat(heads, -1)


@pytest.mark.parametrize("bias", [False, True])
def test_self_attention_is_softmax_attention(bias):
    layer, tokens = SelfAttention(WIDTH, HEADS, bias=bias), torch.randn(3, 7, WIDTH)
    query, key, value = layer.query_key_value(tokens).chunk(3, -1)
    expected = layer.output(reference_attention(query, key, value, HEADS))
    torch.testing.assert_close(layer(tokens), expected)


def test_cross_attention_is_softmax_attention():
    layer, queries, tokens = CrossAttention(WIDTH, HEADS), torch.randn(3, 5, WIDTH), torch.randn(3, 7, WIDTH)
    key, value = layer.key_value(tokens).chunk(2, -1)
    expected = layer.output(reference_attention(layer.query(queries), key, value, HEADS))
    torch.testing.assert_close(layer(queries, tokens), expected)


def test_shared_queries_are_the_same_as_repeated_ones():
    block, queries, tokens = CrossAttentionBlock(WIDTH, HEADS), torch.randn(1, 5, WIDTH), torch.randn(3, 7, WIDTH)
    torch.testing.assert_close(block(queries, tokens), block(queries.repeat(3, 1, 1), tokens))


def test_masked_tokens_are_as_if_removed():
    block, queries, tokens = CrossAttentionBlock(WIDTH, HEADS), torch.randn(1, 5, WIDTH), torch.randn(3, 7, WIDTH)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = False
    masked = block(queries, tokens, mask)
    torch.testing.assert_close(masked[1], block(queries, tokens[1:2, :4])[0])
    torch.testing.assert_close(masked[0], block(queries, tokens[:1])[0])


def test_pooling_ignores_the_order_of_tokens():
    block, queries, tokens = CrossAttentionBlock(WIDTH, HEADS), torch.randn(1, 5, WIDTH), torch.randn(3, 7, WIDTH)
    torch.testing.assert_close(block(queries, tokens[:, torch.randperm(7)]), block(queries, tokens))


def test_keys_and_values_serve_many_lists_of_queries():
    block, queries, tokens = CrossAttentionBlock(WIDTH, HEADS), torch.randn(1, 6, WIDTH), torch.randn(3, 7, WIDTH)
    prepared = block.keys_values(tokens)
    parts = [block.attend(part, prepared) for part in queries.split(4, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), block(queries, tokens))


def test_blocks_are_residual():
    tokens = torch.randn(3, 7, WIDTH)
    self_block, cross_block = SelfAttentionBlock(WIDTH, HEADS), CrossAttentionBlock(WIDTH, HEADS)
    for block in (self_block, cross_block):
        torch.nn.init.zeros_(block.attention.output.weight)
        torch.nn.init.zeros_(block.feed_forward.output.weight)
    assert torch.equal(self_block(tokens), tokens)
    assert torch.equal(cross_block(tokens, torch.randn(3, 2, WIDTH)), tokens)


def test_normalised_tokens_are_not_normalised_again():
    queries, tokens = torch.randn(1, 5, WIDTH), torch.randn(3, 7, WIDTH)
    plain = CrossAttentionBlock(WIDTH, HEADS, normalise_tokens=False)
    normalising = CrossAttentionBlock(WIDTH, HEADS)
    torch.testing.assert_close(normalising(queries, 9 * tokens), normalising(queries, tokens))
    assert (plain(queries, 9 * tokens) - plain(queries, tokens)).abs().max() > 1e-2


@pytest.mark.parametrize("n_heads", [0, 3])
def test_heads_must_divide_the_width(n_heads):
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        SelfAttention(WIDTH, n_heads)


def test_half_precision_stays_close():
    block, tokens = SelfAttentionBlock(WIDTH, HEADS), torch.randn(3, 7, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        half = block(tokens)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, block(tokens), atol=0.05, rtol=0.02)

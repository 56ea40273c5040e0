from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from scldm.prior.source import Noise
from scldm.prior.state import PARTS, CellState, packed_size


def state_of(n_cells: int = 4, latent_size: int = 3, seed: int = 0) -> CellState:
    return Noise(latent_size).draw(n_cells, torch.Generator().manual_seed(seed))


@given(n_cells=st.integers(0, 5), latent_size=st.integers(1, 6))
def test_packing_can_be_undone(n_cells, latent_size):
    state = state_of(n_cells, latent_size)
    known = torch.arange(n_cells) % 2 == 0
    packed = state.pack()
    assert packed.shape == (n_cells, packed_size(latent_size))
    again = CellState.unpack(packed, known)
    assert torch.equal(again.latents, state.latents)
    assert torch.equal(again.depth, state.depth)
    assert again.depth_known is known
    assert torch.equal(CellState.unpack(again.pack()).pack(), packed)


def test_parts_are_the_latents_and_the_depth():
    state = state_of()
    latents, depth = (state.pack()[:, part] for part in PARTS)
    assert torch.equal(latents, state.latents)
    assert torch.equal(depth[:, 0], state.depth)


def test_given_depths_replace_those_of_their_cells_alone():
    state, known = state_of(), torch.tensor([True, False, False, True])
    given = state.give_depth(torch.arange(4.0), known)
    assert torch.equal(given.depth, torch.tensor([0.0, state.depth[1], state.depth[2], 3.0]))
    assert torch.equal(given.latents, state.latents)
    assert given.depth_known is known
    assert state.depth_known is None


def test_cells_come_after_one_another():
    first, second = state_of(2, seed=1), state_of(3, seed=2)
    both = CellState.concatenate([first, second])
    assert torch.equal(both.pack(), torch.cat([first.pack(), second.pack()]))
    assert both.depth_known is None
    known = torch.tensor([True, False, True])
    for states, expected in (
        ((first, second.give_depth(second.depth, known)), [False, False, True, False, True]),
        ((second.give_depth(second.depth, known), first), [True, False, True, False, False]),
    ):
        assert CellState.concatenate(states).depth_known.tolist() == expected


def test_noise_is_standard_normal_and_repeats_with_the_seed():
    state = state_of(20_000)
    packed = state.pack()
    torch.testing.assert_close(packed.mean(0), torch.zeros(4), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(packed.T), torch.eye(4), atol=0.03, rtol=0)
    assert torch.equal(state_of(20_000).pack(), packed)
    assert not torch.equal(state_of(20_000, seed=1).pack(), packed)

from __future__ import annotations

import numpy as np
import pytest
import torch

from scldm.nn.dropout import CellDropout, draw_seeds

SHAPE = (400, 5, 40)


def seeds_of(n: int, seed: int = 0) -> torch.Tensor:
    return draw_seeds(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_asked_for_is_dropped_and_the_mean_is_kept(share):
    dropped = CellDropout(share, 0)(torch.ones(SHAPE), seeds_of(400))
    kept = (dropped != 0).double()
    deviation = np.sqrt(share * (1 - share) / kept.numel())
    assert kept.mean().item() == pytest.approx(1 - share, abs=5 * deviation)
    assert torch.equal(dropped[kept.bool()].unique(), torch.tensor([1 / (1 - share)]))


def test_masks_are_independent_between_cells_places_and_modules():
    masks = [(CellDropout(0.5, number)(torch.ones(SHAPE), seeds_of(400)) != 0).float() for number in range(3)]
    flat = torch.stack([m.flatten() for m in masks])
    assert (torch.corrcoef(flat) - torch.eye(3)).abs().max() < 5 / np.sqrt(flat.shape[1])
    places = torch.corrcoef(masks[0].flatten(1).T) - torch.eye(200)
    cells = torch.corrcoef(masks[0].flatten(1)) - torch.eye(400)
    # The largest of many correlations of independent masks: 5.5 standard deviations are passed by one in 10^7.
    assert places.abs().max() < 5.5 / np.sqrt(400)
    assert cells.abs().max() < 5.5 / np.sqrt(200)


def test_a_cell_loses_the_same_however_the_batch_is_cut():
    module, values, seeds = CellDropout(0.3, 1), torch.randn(SHAPE), seeds_of(400)
    whole = module(values, seeds)
    back = torch.empty_like(whole)
    for cells in torch.randperm(400, generator=torch.Generator().manual_seed(0)).split(37):
        back[cells] = module(values[cells], seeds[cells])
    assert torch.equal(back, whole)


def test_nothing_is_dropped_in_evaluation_or_without_seeds():
    module, values = CellDropout(0.5, 0), torch.randn(SHAPE)
    assert module(values, None) is values
    assert CellDropout(0.0, 0)(values, seeds_of(400)) is values
    assert module.eval()(values, seeds_of(400)) is values

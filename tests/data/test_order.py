from __future__ import annotations

import itertools

import anndata as ad
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from scldm.data import BatchIndices, CellDataset, EpochOrder, open_source
from scldm.errors import UserError


@given(
    n_cells=st.integers(1, 60),
    batch_size=st.integers(1, 80),
    world_size=st.integers(1, 5),
    seed=st.integers(-(2**70), 2**70),
    epoch=st.integers(0, 1000),
)
def test_ranks_share_the_batch_of_one_process(
    n_cells: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    if min(n_cells, batch_size) < world_size:
        with pytest.raises(UserError, match=f"cannot be shared by {world_size} processes"):
            EpochOrder(n_cells, batch_size, seed, 0, world_size)
        return
    alone = EpochOrder(n_cells, batch_size, seed)
    ranks = [EpochOrder(n_cells, batch_size, seed, rank, world_size) for rank in range(world_size)]
    seen = []
    for step in range(alone.steps_per_epoch):
        parts = [rank.batch(epoch, step) for rank in ranks]
        batch = alone.batch(epoch, step)
        np.testing.assert_array_equal(np.concatenate(parts), batch)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1
        assert len(batch) == min(batch_size, n_cells)
        seen.extend(batch.tolist())
    assert len(seen) == len(set(seen)) == n_cells // min(batch_size, n_cells) * min(batch_size, n_cells)
    assert set(seen) <= set(range(n_cells))


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    order = EpochOrder(1000, 100, seed=3)
    late = order.batch(7, 4)
    order.batch(0, 0)
    np.testing.assert_array_equal(order.batch(7, 4), late)
    np.testing.assert_array_equal(EpochOrder(1000, 100, seed=3).batch(7, 4), late)
    for other in (EpochOrder(1000, 100, seed=4).batch(7, 4), order.batch(8, 4), order.batch(7, 5)):
        assert (other != late).mean() > 0.9


def test_seed_and_epoch_do_not_mix() -> None:
    first, second = EpochOrder(500, 500, seed=0).batch(1, 0), EpochOrder(500, 500, seed=1).batch(0, 0)
    assert (first != second).mean() > 0.9


def test_changing_a_batch_does_not_change_the_order() -> None:
    order = EpochOrder(10, 5, seed=0)
    batch = order.batch(0, 0)
    kept = batch.copy()
    batch[:] = 0
    np.testing.assert_array_equal(order.batch(0, 0), kept)


@given(start=st.integers(0, 25), n_batches=st.integers(0, 12))
def test_a_stream_resumes_anywhere(start: int, n_batches: int) -> None:
    order = EpochOrder(23, 5, seed=0)
    whole = list(itertools.islice(BatchIndices(order), start + n_batches))
    resumed = BatchIndices(order, start, n_batches)
    assert len(resumed) == n_batches
    np.testing.assert_array_equal(np.array(list(resumed)), np.array(whole[start:]))


def test_an_endless_stream_has_no_length() -> None:
    stream = BatchIndices(EpochOrder(4, 2, seed=0))
    with pytest.raises(TypeError, match="endless"):
        len(stream)
    assert len(list(itertools.islice(stream, 100))) == 100


def test_a_data_loader_yields_the_cells_of_the_stream(adata: ad.AnnData) -> None:
    source = open_source(adata)
    order = EpochOrder(60, 16, seed=5)
    dataset = CellDataset(source)
    loader = DataLoader(dataset, batch_size=None, sampler=BatchIndices(order, step=2 * 3 + 1, n_batches=4))
    dense = torch.from_numpy(adata.X.toarray())
    for position, batch in enumerate(loader, start=2 * 3 + 1):
        assert torch.equal(batch.dense(12), dense[order.batch(*divmod(position, 3))])
    assert len(dataset) == 60


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [((0, 4, 0), "0 cells to train on"), ((4, 0, 0), "batch size is 0"), ((8, 8, 0, 2, 2), "rank 2 is not below")],
)
def test_impossible_orders_are_refused(arguments: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        EpochOrder(*arguments)


@pytest.mark.parametrize(("epoch", "step"), [(0, 3), (0, -1), (-1, 0)])
def test_batches_outside_an_epoch_do_not_exist(epoch: int, step: int) -> None:
    with pytest.raises(ValueError, match="epochs have 3 steps"):
        EpochOrder(60, 16, seed=0).batch(epoch, step)

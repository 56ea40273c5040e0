from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from scldm.data.order import BatchIndices, EpochOrder
from scldm.prior.latents import EncodedCells, LatentStatistics, LatentStore

N_CELLS, STATE = 50, 6


def cells_of(n_cells: int = N_CELLS, seed: int = 0, log_variance: float | None = None) -> EncodedCells:
    random = np.random.default_rng(seed)
    spread = (
        random.normal(-1.0, 0.5, (n_cells, STATE)) if log_variance is None else np.full((n_cells, STATE), log_variance)
    )
    return EncodedCells(
        mean=(random.normal(size=(n_cells, STATE)) * np.arange(1, STATE + 1) + 5).astype(np.float32),
        log_variance=spread.astype(np.float32),
        depth=random.normal(size=n_cells).astype(np.float32),
        categorical=random.integers(-1, 3, (n_cells, 2)),
        continuous=random.normal(size=(n_cells, 1)).astype(np.float32),
    )


def blocks_of(cells: EncodedCells, *sizes: int):
    edges = np.cumsum((0, *sizes))
    for start, stop in itertools.pairwise(edges):
        yield EncodedCells(**{name: value[start:stop] for name, value in vars(cells).items()})


def test_store_gives_back_the_cells_in_the_order_asked_for(tmp_path):
    cells = cells_of()
    store = LatentStore.write(tmp_path / "store", blocks_of(cells, 20, 29, 1), N_CELLS)
    assert len(store) == store.n_cells == N_CELLS
    order = np.array([49, 0, 20, 20, 7])
    batch = store[order]
    assert batch.n_cells == 5
    for name, value in vars(cells).items():
        np.testing.assert_array_equal(getattr(batch, name).numpy(), value[order])


def test_cells_are_read_through_memory_maps_but_batches_are_copies(tmp_path):
    store = LatentStore.write(tmp_path, blocks_of(cells_of(), N_CELLS), N_CELLS)
    assert isinstance(store.cells.mean, np.memmap)
    batch = store[np.arange(3)]
    batch.mean.zero_()
    assert store[np.arange(3)].mean.abs().min() > 0


def test_statistics_are_those_of_latents_drawn_from_the_posterior(tmp_path):
    cells = cells_of()
    store = LatentStore.write(tmp_path, blocks_of(cells, 30, 20), N_CELLS)
    draws = cells.mean + np.exp(0.5 * cells.log_variance) * np.random.default_rng(1).normal(size=(4000, N_CELLS, STATE))
    flat = draws.reshape(-1, STATE)
    np.testing.assert_allclose(store.statistics.mean, flat.mean(0), rtol=5e-3)
    np.testing.assert_allclose(store.statistics.std, flat.std(0), rtol=5e-3)
    # By the law of total variance, exactly.
    variance = cells.mean.var(0, dtype=np.float64) + np.exp(cells.log_variance.astype(np.float64)).mean(0)
    np.testing.assert_allclose(store.statistics.std, np.sqrt(variance), rtol=1e-5)


def test_blocks_do_not_matter(tmp_path):
    stores = [
        LatentStore.write(tmp_path / str(i), blocks_of(cells_of(), *sizes), N_CELLS)
        for i, sizes in enumerate([(50,), (10, 40)])
    ]
    torch.testing.assert_close(stores[0].statistics.std, stores[1].statistics.std, rtol=1e-6, atol=0)
    assert torch.equal(stores[0][np.arange(50)].mean, stores[1][np.arange(50)].mean)


def test_standardising_can_be_undone_and_a_constant_channel_is_harmless(tmp_path):
    cells = cells_of(log_variance=-30.0)
    cells.mean[:, 2] = 7.0
    statistics = LatentStore.write(tmp_path, blocks_of(cells, N_CELLS), N_CELLS).statistics
    latents = torch.from_numpy(cells.mean)
    standardised = statistics.standardise(latents)
    assert standardised.isfinite().all()
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(standardised[:, others].mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardised[:, others].std(0, unbiased=False), torch.ones(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(statistics.restore(standardised), latents)


def test_statistics_by_hand():
    statistics = LatentStatistics(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5]))
    latents = torch.tensor([[3.0, -2.0]])
    assert torch.equal(statistics.standardise(latents), torch.tensor([[1.0, 0.0]]))
    assert torch.equal(statistics.restore(torch.tensor([[1.0, 0.0]])), latents)


def test_interrupted_writing_leaves_no_store(tmp_path):
    def dying():
        yield from blocks_of(cells_of(), 20)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        LatentStore.write(tmp_path, dying(), N_CELLS)
    assert not (tmp_path / "statistics.json").exists()
    # A second attempt in the same place succeeds, and an interrupted third one takes the finished store away.
    LatentStore.write(tmp_path, blocks_of(cells_of(), N_CELLS), N_CELLS)
    assert (tmp_path / "statistics.json").exists()
    with pytest.raises(RuntimeError, match="killed"):
        LatentStore.write(tmp_path, dying(), N_CELLS)
    assert not (tmp_path / "statistics.json").exists()


def test_number_of_cells_has_to_be_the_one_announced(tmp_path):
    with pytest.raises(ValueError, match="20 cells were written, 50 announced"):
        LatentStore.write(tmp_path, blocks_of(cells_of(), 20), N_CELLS)
    assert not (tmp_path / "statistics.json").exists()


def test_store_serves_a_data_loader_and_its_batches_can_be_cut(tmp_path):
    cells = cells_of()
    store = LatentStore.write(tmp_path, blocks_of(cells, N_CELLS), N_CELLS)
    order = EpochOrder(N_CELLS, 8, seed=0)
    loader = torch.utils.data.DataLoader(store, sampler=BatchIndices(order, n_batches=6), batch_size=None)
    batches = list(loader)
    depth = torch.cat([batch.depth for batch in batches]).numpy()
    expected = np.concatenate([cells.depth[order.batch(0, step)] for step in range(6)])
    np.testing.assert_array_equal(depth, expected)
    part = batches[0].slice(2, 5)
    assert part.n_cells == 3
    assert torch.equal(part.mean, batches[0].mean[2:5])
    assert torch.equal(part.to("cpu").categorical, batches[0].categorical[2:5])

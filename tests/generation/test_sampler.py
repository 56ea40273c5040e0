from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import tiny
import torch

from scldm.errors import UserError
from scldm.generation import sampler as module
from scldm.generation.request import CHUNK_CELLS, GenerationRequest
from scldm.model import ScLDM
from scldm.trained import TrainedModel

FAST = {"steps": 2, "solver": "euler"}


@pytest.fixture
def model(trained: ScLDM) -> TrainedModel:
    return trained.trained


def generate(
    model: TrainedModel, request: GenerationRequest, batch_size: int = 512
) -> tuple[sp.csr_matrix, np.ndarray]:
    blocks = list(module.generate(model, request, batch_size))
    return sp.vstack([b.counts for b in blocks], format="csr"), np.concatenate([b.latents for b in blocks])


def same(first: tuple[sp.csr_matrix, np.ndarray], second: tuple[sp.csr_matrix, np.ndarray]) -> bool:
    parts = ("data", "indices", "indptr")
    return all(np.array_equal(getattr(first[0], p), getattr(second[0], p)) for p in parts) and np.array_equal(
        first[1], second[1]
    )


@pytest.fixture
def request_300(trained) -> GenerationRequest:
    conditions = {"cell_type": (["T cell", "B cell", "monocyte"] * 100), "age": 40.0}
    return GenerationRequest.build(trained.schema, conditions=conditions, guidance=1.5, **FAST)


@pytest.mark.parametrize("batch_size", [1, 128, 256, 300, 10_000])
def test_batch_size_does_not_change_a_single_count(model, request_300, batch_size):
    assert same(generate(model, request_300, batch_size), generate(model, request_300, 512))


def test_batch_size_decides_how_many_cells_come_at_a_time(model, request_300):
    def sizes(batch_size):
        return [block.counts.shape[0] for block in module.generate(model, request_300, batch_size)]

    assert sizes(1) == sizes(CHUNK_CELLS) == [128, 128, 44]
    assert sizes(256) == [256, 44]
    assert sizes(10_000) == [300]


@pytest.mark.parametrize("n_cells", [1, 100, 128, 200])
def test_first_cells_of_a_longer_request_are_the_shorter_one(trained, model, n_cells):
    conditions = {"cell_type": "B cell"}
    long, short = (
        generate(model, GenerationRequest.build(trained.schema, n, conditions=conditions, seed=5, **FAST))
        for n in (300, n_cells)
    )
    assert same(short, (long[0][:n_cells], long[1][:n_cells]))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_are_the_whole_cut_into_pieces(model, request_300, parts):
    pieces = [request_300.part(k, parts) for k in range(1, parts + 1)]
    assert sum(piece.n_cells for piece in pieces) == 300
    made = [generate(model, piece) for piece in pieces]
    counts = sp.vstack([m[0] for m in made], format="csr")
    assert same((counts, np.concatenate([m[1] for m in made])), generate(model, request_300))


def test_a_part_of_a_part_is_a_part(model, request_300):
    assert same(generate(model, request_300.part(2, 3)), generate(model, request_300.part(1, 1).part(2, 3)))
    last, nested = request_300.part(3, 3), request_300.part(2, 2).part(2, 2)
    assert (last.first_chunk, last.n_cells) == (nested.first_chunk, nested.n_cells) == (2, 44)
    assert same(generate(model, last), generate(model, nested))


def test_depths_go_with_their_part(trained, model):
    depths = np.linspace(trained.schema.depth.minimum, trained.schema.depth.maximum, 300)
    request = GenerationRequest.build(trained.schema, 300, depth=depths, **FAST)
    np.testing.assert_allclose(request.part(2, 2).depth, depths[128:], rtol=1e-6)
    assert same(generate(model, request.part(1, 2)), tuple(x[:128] for x in generate(model, request)))


@pytest.mark.parametrize(
    ("number", "parts", "message"),
    [
        (0, 2, "part 0 of 2 does not exist"),
        (3, 2, "part 3 of 2"),
        (1, 4, "300 cells cannot be cut into 4 parts: .* it has 3"),
    ],
)
def test_parts_that_do_not_exist_are_refused(request_300, number, parts, message):
    with pytest.raises(UserError, match=message):
        request_300.part(number, parts)


def test_seed_decides_everything(trained, model):
    first, again, other = (
        generate(model, GenerationRequest.build(trained.schema, 50, seed=seed, **FAST)) for seed in (1, 1, 2)
    )
    assert same(first, again)
    assert not np.array_equal(first[1], other[1])


def test_global_random_state_is_neither_used_nor_changed(trained, model):
    request = GenerationRequest.build(trained.schema, 50, **FAST)
    torch.manual_seed(1)
    first = generate(model, request)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert same(generate(model, request), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_chunks_differ_from_each_other(trained, model):
    counts, latents = generate(model, GenerationRequest.build(trained.schema, 3 * CHUNK_CELLS, **FAST))
    assert len(np.unique(latents, axis=0)) == 3 * CHUNK_CELLS
    assert (counts[:CHUNK_CELLS] != counts[CHUNK_CELLS : 2 * CHUNK_CELLS]).nnz > 0


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_blocks_in_turn(model, request_300, monkeypatch, world_size):
    """Each rank makes its own blocks; together, in order, they are what one process makes."""
    expected = [b.counts for b in module.generate(model, request_300, 1)]
    made: dict[int, list] = {}

    def no_gather(block, rank, world_size):
        made.setdefault(rank, []).append(block)
        return [None]

    monkeypatch.setattr("scldm.generation.sampler._gather", no_gather)
    for rank in range(world_size):
        assert list(module.generate(model, request_300, 1, rank=rank, world_size=world_size)) == []
    rounds = zip(*(made[rank] for rank in range(world_size)), strict=True)
    blocks = [block for one_round in rounds for block in one_round if block is not None]
    assert len(blocks) == 3
    for ours, theirs in zip(blocks, expected, strict=True):
        assert (ours.counts != theirs).nnz == 0


def test_progress_counts_every_cell(model, request_300):
    seen: list[int] = []
    for _ in module.generate(model, request_300, 128, on_cells=seen.append):
        pass
    assert seen == [128, 128, 44]


@pytest.mark.filterwarnings("ignore:outside the range")
def test_given_depth_is_respected_within_its_noise(trained, model):
    depths = np.repeat([30.0, 300.0, 3000.0], 200)
    counts, _ = generate(model, GenerationRequest.build(trained.schema, depth=depths, **FAST))
    totals = np.asarray(counts.sum(1)).ravel()
    for depth in (30.0, 300.0, 3000.0):
        x = totals[depths == depth]
        assert abs(x.mean() - depth) < 5 * x.std() / np.sqrt(200)
        assert x.std() / np.sqrt(200) < 0.1 * depth


@pytest.mark.parametrize("depth", [None, 40, np.arange(40, 240)], ids=["generated", "one for all", "one per cell"])
def test_counts_add_up_to_the_depth_exactly_where_that_is_asked_for(trained, model, depth):
    options = {"seed": 3, "steps": 2, "depth": depth}
    request = GenerationRequest.build(trained.schema, 200, exact_depth=True, **options)
    counts, latents = generate(model, request, batch_size=128)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    if depth is None:
        assert trained.schema.depth.minimum - 0.5 <= totals.min()
        assert totals.max() <= trained.schema.depth.maximum + 0.5
        assert len(np.unique(totals)) > 10
    else:
        np.testing.assert_array_equal(totals, np.broadcast_to(depth, 200))
    assert same((counts, latents), generate(model, request, batch_size=512))
    assert same((counts[128:], latents[128:]), generate(model, request.part(2, 2)))
    # The latents, and so the cells behind the counts, are those of a request that draws to the depth on average.
    on_average = GenerationRequest.build(trained.schema, 200, **options)
    assert np.array_equal(latents, generate(model, on_average)[1])


@pytest.mark.parametrize("depth", [None, 40])
def test_first_cells_with_an_exact_depth_are_those_of_a_longer_request(trained, model, depth):
    few, many = (
        generate(model, GenerationRequest.build(trained.schema, n, steps=2, depth=depth, exact_depth=True))
        for n in (17, 60)
    )
    assert same(few, (many[0][:17], many[1][:17]))


def test_a_broken_number_of_counts_is_refused(trained):
    with pytest.raises(UserError, match=r"depth is 2\.5; counts add up to whole numbers of UMI only"):
        GenerationRequest.build(trained.schema, 2, depth=[3.0, 2.5], exact_depth=True)


def test_generated_depth_stays_in_the_range_of_the_training_cells(trained, model, monkeypatch):
    seen = []
    sample_counts = type(model.vae).sample_counts
    monkeypatch.setattr(
        type(model.vae),
        "sample_counts",
        lambda self, latents, library_size, *rest, **options: (
            seen.append(library_size) or sample_counts(self, latents, library_size, *rest, **options)
        ),
    )
    generate(model, GenerationRequest.build(trained.schema, 1280, **FAST))
    depth = torch.cat(seen).numpy()
    assert depth.min() >= trained.schema.depth.minimum * (1 - 1e-6)
    assert depth.max() <= trained.schema.depth.maximum * (1 + 1e-6)
    # And varies like theirs instead of being one number.
    assert depth.std() > 0.3 * np.std(trained.schema.depth.quantiles)


def test_list_of_genes_is_a_slice_of_all(trained, model, request_300):
    names = ["GENE40", "GENE3", "GENE17"]
    index = trained.schema.gene_index(names)
    some = generate(model, dataclasses.replace(request_300, genes=index))
    everything = generate(model, request_300)
    assert (some[0] != everything[0][:, index]).nnz == 0
    assert some[0].has_sorted_indices
    np.testing.assert_array_equal(some[1], everything[1])


def test_conditions_are_seen_by_the_network(trained, model):
    """The same noise with another label gives other latents; without guidance, and with the label hidden, the same."""

    def latents(cell_type, guidance):
        conditions = {"cell_type": cell_type}
        request = GenerationRequest.build(trained.schema, 20, conditions=conditions, guidance=guidance, **FAST)
        return generate(model, request)[1]

    assert np.abs(latents("T cell", 1.0) - latents("B cell", 1.0)).max() > 1e-4
    np.testing.assert_array_equal(latents("T cell", 0.0), latents("B cell", 0.0))
    apart = [np.abs(latents("T cell", w) - latents("B cell", w)).mean() for w in (0.5, 1.0, 3.0)]
    assert apart[0] < apart[1] < apart[2]


def test_dispersion_follows_the_category_asked_for(trained, request_300, monkeypatch):
    model, seen = trained.trained, []
    assert model.dispersion_attribute == 0
    sample = type(model.vae.likelihood).sample
    monkeypatch.setattr(
        type(model.vae.likelihood),
        "sample",
        lambda self, heads, library_size, generator, categories=None: (
            seen.append(categories) or sample(self, heads, library_size, generator, categories)
        ),
    )
    generate(model, request_300)
    np.testing.assert_array_equal(torch.cat(seen)[:300], request_300.categorical[:, 0])


def test_steps_and_solver_are_what_the_network_is_called_for(trained, model, monkeypatch):
    for solver, steps, calls in (("euler", 3, 3), ("heun", 3, 6), ("midpoint", 5, 10)):
        seen = []
        forward = type(model.prior).forward
        with monkeypatch.context() as patch:
            patch.setattr(
                type(model.prior),
                "forward",
                lambda self, *args, forward=forward, seen=seen: seen.append(len(args[0])) or forward(self, *args),
            )
            generate(model, GenerationRequest.build(trained.schema, 5, solver=solver, steps=steps))
        assert seen == [CHUNK_CELLS] * calls


def test_model_without_attributes_generates():
    config = tiny.tiny_config(
        vae=tiny.tiny_vae(), vae_training=tiny.tiny_training(cells=48), prior_training=tiny.tiny_training(cells=48)
    )
    model = tiny.tiny_model(config)
    model.train()
    cells = model.sample(10, **FAST)
    assert cells.obs.shape == (10, 0)
    assert cells.X.sum() > 10


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_few_step_solver_is_near_the_fine_one_and_depends_on_no_batch(trained, model, guidance):
    def request(**solver):
        return GenerationRequest.build(
            trained.schema, 300, conditions={"cell_type": "B cell"}, seed=3, guidance=guidance, **solver
        )

    fine = generate(model, request(solver="heun", steps=25))[1]
    few = generate(model, request(solver="few_step"))
    coarse = generate(model, request(solver="midpoint", steps=2))[1]
    assert np.abs(few[1] - fine).mean() < np.abs(coarse - fine).mean()
    assert same(few, generate(model, request(solver="few_step", steps=4), batch_size=128))


def test_few_step_solver_that_was_not_fitted_is_refused_before_anything_is_generated(trained, tmp_path):
    with pytest.raises(UserError, match=r"no few-step solver of 3 evaluations \(it has: 4\)"):
        trained.sample(5, solver="few_step", steps=3)
    request = GenerationRequest.build(trained.schema, 5, solver="few_step", steps=3)
    with pytest.raises(UserError, match="no few-step solver"):
        trained.sample_to_file(tmp_path / "cells.h5ad", request)
    assert not list(tmp_path.iterdir())

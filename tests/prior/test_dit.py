from __future__ import annotations

import math
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

from scldm.nn.dropout import draw_seeds
from scldm.prior.dit import DiT, convert_published_dit_state
from scldm.prior.guidance import Guidance, guided_field

FIXTURE = Path(__file__).parents[1] / "fixtures" / "published_reference.npz"
N_CELLS = 5


def build(*, trained: bool = True, **options) -> DiT:
    """Small network; ``trained`` replaces the zeros of its start by random numbers."""
    torch.manual_seed(0)
    network = DiT(4, 3, 16, 2, 2, (3, 2), 1, **options)
    if trained:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def inputs(network: DiT) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "state": torch.randn(N_CELLS, network.state_size, generator=generator),
        "time": torch.rand(N_CELLS, generator=generator),
        "categorical": torch.tensor([[0, 1], [2, 0], [-1, 1], [1, -1], [-1, -1]]),
        "continuous": torch.tensor([[0.5], [math.nan], [-2.0], [0.0], [math.nan]]),
    }


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("with_depth", [True, False])
def test_velocity_is_zero_at_the_start_and_learns(with_depth):
    network = build(trained=False, with_depth=with_depth)
    velocity = network(**inputs(network))
    assert velocity.shape == (N_CELLS, 4 * 3 + with_depth)
    assert torch.equal(velocity, torch.zeros_like(velocity))
    (velocity - 1).square().sum().backward()
    assert network.latent_output.weight.grad.abs().sum() > 0


def test_every_parameter_takes_part():
    network = build()
    network(**inputs(network), depth_known=torch.ones(N_CELLS, dtype=torch.bool)).sum().backward()
    # Distributed training waits for the gradient of every parameter.
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    bare = DiT(4, 3, 16, 1, 2)
    assert not any("continuous" in name or "tables" in name for name, _ in bare.named_parameters())


def test_cells_do_not_see_each_other():
    network = build()
    whole = inputs(network)
    alone = network(**{name: value[1:2] for name, value in whole.items()})
    # Matrix products of other shapes round differently, by how much depends on the processor.
    torch.testing.assert_close(alone, network(**whole)[1:2], rtol=1e-5, atol=1e-5)


def test_every_part_of_the_state_matters_to_every_part_of_the_velocity():
    network = build()
    cell = {name: value[:1] for name, value in inputs(network).items()}
    rest = {name: value for name, value in cell.items() if name != "state"}
    jacobian = torch.autograd.functional.jacobian(lambda state: network(state, **rest), cell["state"])
    assert (jacobian.abs() > 1e-6).all()


def test_latent_tokens_have_positions():
    network = build(with_depth=False)
    cell = inputs(network)
    swapped = cell["state"].unflatten(1, (4, 3)).flip(1).flatten(1)
    velocity = network(**cell).unflatten(1, (4, 3)).flip(1).flatten(1)
    assert relative_error(network(**{**cell, "state": swapped}), velocity) > 0.01


def test_time_is_seen_and_its_scale_matters():
    velocity = {}
    for scale in (1.0, 1000.0):
        network = build(time_scale=scale)
        cell = {name: value[:1] for name, value in inputs(network).items() if name != "time"}
        near = [network(time=torch.tensor([t]), **cell) for t in (0.50, 0.51)]
        velocity[scale] = relative_error(near[0], near[1])
    assert velocity[1000.0] > 10 * velocity[1.0] > 0


def test_null_attributes_are_one_velocity_of_their_own():
    network = build()
    cell = {name: value[:1] for name, value in inputs(network).items()}
    null = network(**{**cell, "categorical": torch.tensor([[-1, -1]]), "continuous": torch.tensor([[math.nan]])})
    seen = [null]
    for codes, value in [([0, -1], math.nan), ([-1, 0], math.nan), ([-1, -1], 0.0), ([0, 0], 0.0)]:
        seen.append(network(**{**cell, "categorical": torch.tensor([codes]), "continuous": torch.tensor([[value]])}))
    assert torch.stack(seen).isfinite().all()
    for i, first in enumerate(seen):
        assert all(relative_error(first, second) > 1e-3 for second in seen[:i])


def test_known_depth_has_no_velocity_and_changes_the_latents():
    network = build()
    cell = inputs(network)
    known = torch.tensor([True, False, True, False, False])
    velocity, free = network(**cell, depth_known=known), network(**cell)
    assert torch.equal(velocity[known, -1], torch.zeros(2))
    assert (velocity[~known, -1] != 0).all()
    torch.testing.assert_close(velocity[~known], free[~known])
    assert relative_error(velocity[known, :-1], free[known, :-1]) > 1e-3


def test_no_known_depth_is_the_same_as_none():
    network = build()
    cell = inputs(network)
    nobody = torch.zeros(N_CELLS, dtype=torch.bool)
    torch.testing.assert_close(network(**cell, depth_known=nobody), network(**cell))


def test_known_depth_needs_a_depth():
    network = build(with_depth=False)
    with pytest.raises(ValueError, match="state has no depth"):
        network(**inputs(network), depth_known=torch.ones(N_CELLS, dtype=torch.bool))


def test_state_of_the_wrong_size_is_refused():
    network = build()
    with pytest.raises(ValueError, match="state of 13 numbers per cell, got 12"):
        network(**{**inputs(network), "state": torch.zeros(N_CELLS, 12)})


def test_dropout_acts_in_training_only():
    network = build(dropout=0.5)
    cell = inputs(network)
    one, other = (draw_seeds(N_CELLS, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    plain = network(**cell)
    assert relative_error(network(**cell, dropout_seeds=one), plain) > 1e-3
    assert relative_error(network(**cell, dropout_seeds=one), network(**cell, dropout_seeds=other)) > 1e-3
    assert torch.equal(network(**cell, dropout_seeds=one), network(**cell, dropout_seeds=one))
    network.eval()
    assert torch.equal(network(**cell, dropout_seeds=one), plain)


def test_half_precision_stays_close_and_returns_the_type_of_the_state():
    network = build()
    cell = inputs(network)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(**cell)
    assert half.dtype == torch.float32
    # Were time times 1000 rounded to bfloat16, its sinusoids would be off by whole periods.
    assert relative_error(half, network(**cell)) < 0.1


def test_forward_is_one_graph():
    network = build()
    cell = {**inputs(network), "depth_known": torch.tensor([True, False, True, False, False])}
    # The compiler cannot look into the shape checks that tests switch on.
    disabled = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        compiled = torch.compile(network, backend="eager", fullgraph=True)(**cell)
    finally:
        jaxtyping.config.update("jaxtyping_disable", disabled)
    torch.testing.assert_close(compiled, network(**cell))


@pytest.mark.parametrize(
    ("name", "attributes"), [("joint", ["batch", "cell_type"]), ("mutually_exclusive", ["cell_type"])]
)
def test_published_denoiser(name, attributes):
    with np.load(FIXTURE) as file:
        prefix = f"dit_{name}/"
        reference = {key.removeprefix(prefix): torch.from_numpy(file[key]) for key in file if key.startswith(prefix)}
    state = {key.removeprefix("state/"): value for key, value in reference.items() if key.startswith("state/")}
    n_categories = [state[f"class_embeddings.{attribute}.weight"].shape[0] - 1 for attribute in attributes]
    network = DiT(8, 16, 64, 2, 4, n_categories, with_depth=False, time_scale=1.0, eps=1e-8)
    network.load_state_dict(convert_published_dit_state(state, attributes))
    torch.testing.assert_close(network.positions, state["pos_embed"][0])

    x, time = reference["input/x"].flatten(1), reference["input/t"]
    categorical = torch.stack([reference[f"input/{attribute}"] for attribute in attributes], dim=1)
    continuous = torch.empty(len(x), 0)
    theirs = {k: reference[f"output/velocity_{k}"].flatten(1) for k in ("conditional", "null", "guided_scale_2")}
    with torch.no_grad():
        conditional = network(x, time, categorical, continuous)
        null = network(x, time, torch.full_like(categorical, -1), continuous)
        # The reference has another time in every row, guidance one time for all: guide row by row.
        plan = Guidance.joint(2.0).plan(attributes, attributes)
        guided = [
            guided_field(network, categorical[[i]], continuous[[i]], plan)(x[[i]], time[i].item())
            for i in range(len(x))
        ]
    assert relative_error(conditional, theirs["conditional"]) < 1e-5
    assert relative_error(null, theirs["null"]) < 1e-5
    assert relative_error(torch.cat(guided), theirs["guided_scale_2"]) < 1e-5

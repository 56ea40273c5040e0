"""Whatever the caller has told torch, a request gives the same cells and a training the same weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import tiny
import torch
from accelerate import Accelerator

from scldm.torch_state import own_torch_defaults
from scldm.trained import TrainedModel

REQUEST = {"conditions": {"cell_type": "T cell"}, "seed": 4, "steps": 2}


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


STATES = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "a device without memory": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
}
states = pytest.mark.parametrize("state", STATES.values(), ids=STATES)


def observed() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


OURS = (torch.float32, torch.device("cpu"), False, True, False)


@states
@pytest.mark.parametrize("failing", [False, True])
def test_the_state_is_ours_inside_and_the_callers_again_outside(state, failing):
    at_first = observed()
    with state():
        before = observed()
        assert before != OURS
        with contextlib.suppress(KeyError), own_torch_defaults():
            assert observed() == OURS
            if failing:
                raise KeyError
        assert observed() == before
    assert observed() == at_first


@states
def test_cells_and_latents_do_not_depend_on_the_state(trained, state):
    cells, real = trained.sample(5, **REQUEST), tiny.tiny_adata(20)
    latents = trained.get_latent_representation(real)
    with state():
        again, latents_again = trained.sample(5, **REQUEST), trained.get_latent_representation(real)
    assert (again.X != cells.X).nnz == 0
    np.testing.assert_array_equal(again.obsm["X_scldm"], cells.obsm["X_scldm"])
    np.testing.assert_array_equal(latents_again, latents)


def test_weights_do_not_depend_on_the_state(trained):
    with default_dtype(torch.float64), torch.no_grad():
        model = tiny.tiny_model()
        model.train(accelerator=Accelerator(cpu=True))
    assert weights(model.trained).keys() == weights(trained.trained).keys()
    for name, weight in weights(trained.trained).items():
        again = weights(model.trained)[name]
        assert again.dtype == weight.dtype
        assert torch.equal(again, weight), name
    assert model.trained.few_step.keys() == trained.trained.few_step.keys()
    for key, solver in trained.trained.few_step.items():
        assert torch.equal(model.trained.few_step[key].weights, solver.weights)


def weights(model: TrainedModel) -> dict[str, torch.Tensor]:
    return {**model.vae.state_dict(prefix="vae."), **model.prior.state_dict(prefix="prior.")}

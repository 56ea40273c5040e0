from __future__ import annotations

import dataclasses

import pytest
import torch

from scldm.trained import TrainingSummary, parameter_counts


def test_on_its_own_device_a_model_is_itself(trained):
    model = trained.trained
    assert model.to("cpu") is model


def test_a_model_on_another_device_leaves_the_first_where_it_is(trained):
    model = trained.trained
    moved = model.to("meta")
    assert moved.device == torch.device("meta")
    assert {p.device.type for p in moved.vae.parameters()} == {"meta"}
    assert {p.device.type for p in (*model.vae.parameters(), *model.prior.parameters())} == {"cpu"}
    assert trained.sample(3, steps=1).n_obs == 3


def test_networks_are_in_evaluation_mode_and_without_gradients(trained):
    for network in (trained.trained.vae, trained.trained.prior):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_parameters_are_counted_without_making_them(trained):
    model = trained.trained
    counted = parameter_counts(model.config, model.schema)
    assert counted == {
        "vae": sum(p.numel() for p in model.vae.parameters()),
        "prior": sum(p.numel() for p in model.prior.parameters()),
    }


def test_the_fingerprint_depends_on_how_chunks_are_seeded(trained):
    model = trained.trained
    other = dataclasses.replace(model, config=dataclasses.replace(model.config, seeding="32-bit"))
    assert other.fingerprint() != model.fingerprint()


def test_a_summary_holds_numbers():
    stage = {"cells": 1, "best_loss": 0.5, "stopped_early": False}
    with pytest.raises(ValueError, match="lacks cells"):
        TrainingSummary(1, 1, 1, "cpu", {}, stage)
    with pytest.raises(ValueError, match="something else than numbers"):
        TrainingSummary(1, 1, 1, "cpu", {**stage, "best_loss": "low"}, stage)

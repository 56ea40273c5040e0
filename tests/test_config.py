from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scldm.config import (
    DataConfig,
    PriorConfig,
    RunConfig,
    TrainingConfig,
    VAEConfig,
    load_config,
)
from scldm.errors import UserError
from scldm.prior.registry import TIME_SAMPLERS
from scldm.vae.counts.registry import LIKELIHOODS

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def run(**values) -> RunConfig:
    return RunConfig.from_dict(values)


def test_defaults_survive_yaml(tmp_path):
    (tmp_path / "run.yaml").write_text(RunConfig().to_yaml())
    assert load_config(tmp_path / "run.yaml") == RunConfig()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**40),
    n_latents=st.sampled_from([1, 2, 4]),
    learning_rate=st.floats(1e-8, 1.0),
    betas=st.tuples(st.floats(0.1, 0.99), st.floats(0.1, 0.999)),
    conditions=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    layer=st.none() | st.text(),
)
def test_every_configuration_survives_yaml(tmp_path_factory, seed, n_latents, learning_rate, betas, conditions, layer):
    config = RunConfig(
        seed=seed,
        data=DataConfig(conditions=conditions, layer=layer),
        vae=VAEConfig(n_latents=n_latents),
        prior_training=TrainingConfig(learning_rate=learning_rate, betas=betas),
    )
    path = tmp_path_factory.mktemp("yaml") / "run.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config
    assert RunConfig.from_dict(config.to_dict()) == config


def test_plain_form_is_plain():
    def check(value):
        if isinstance(value, dict):
            for key, item in value.items():
                assert isinstance(key, str)
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert value is None or isinstance(value, str | int | float | bool)

    plain = RunConfig(data=DataConfig(conditions=("a", "b"))).to_dict()
    check(plain)
    assert list(plain) == [field.name for field in dataclasses.fields(RunConfig)]
    assert plain["data"]["conditions"] == ["a", "b"]


def test_empty_file_is_all_defaults(tmp_path):
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "run.yaml") == RunConfig()


def test_sections_keep_their_own_defaults():
    config = run(prior_training={"cells": 1000}, vae_training={"cells": 1000})
    assert config.prior_training == dataclasses.replace(RunConfig().prior_training, cells=1000)
    assert config.vae_training == dataclasses.replace(RunConfig().vae_training, cells=1000)
    assert config.prior_training != config.vae_training


def test_numbers_are_read_as_people_write_them():
    config = run(
        vae_training={"learning_rate": "1e-3", "clip_norm": 1, "cells": 1e6, "betas": [0.9, 1e-1]},
        vae={"kl_weight": 1},
    )
    assert config.vae_training.learning_rate == 1e-3
    assert config.vae_training.clip_norm == 1.0
    assert type(config.vae_training.clip_norm) is float
    assert config.vae_training.cells == 1_000_000
    assert type(config.vae_training.cells) is int
    assert config.vae_training.betas == (0.9, 0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vea": {}}, "Unknown key 'vea'; did you mean 'vae'"),
        ({"vae": {"n_latent": 4}}, "Unknown key 'vae.n_latent'; did you mean 'n_latents'"),
        ({"vae": 3}, "'vae' must be a mapping of keys to values, not int 3"),
        ({"vae": None}, "'vae' must be a mapping of keys to values, not nothing"),
        ({"vae": {"layout": "narrow"}}, "'vae.layout' is 'narrow'; allowed: 'wide', 'published'"),
        ({"vae": {"layout": "publishd"}}, "'vae.layout' is 'publishd'; did you mean 'published'"),
        ({"vae": {"n_latents": "four"}}, "'vae.n_latents' must be an int, not str 'four'"),
        ({"vae": {"n_latents": 4.5}}, "'vae.n_latents' must be an int, not float 4.5"),
        ({"vae": {"n_latents": True}}, "'vae.n_latents' must be an int, not bool True"),
        ({"vae": {"mask_padding": 1}}, "'vae.mask_padding' must be a bool, not int 1"),
        ({"vae": {"kl_weight": "much"}}, "'vae.kl_weight' must be a float, not str 'much'"),
        ({"vae": {"n_latents": None}}, "'vae.n_latents' must be an int, not nothing"),
        ({"data": {"conditions": "batch"}}, "'data.conditions' must be a list, not str 'batch'"),
        ({"data": {"conditions": [1]}}, "'data.conditions' must be a str, not int 1"),
        ({"vae_training": {"betas": [0.9]}}, "'vae_training.betas' must have 2 entries, not 1"),
        ({"vae": {"n_latents": 0}}, "vae.n_latents is 0; it must be at least 1"),
        ({"vae": {"n_layers": -1}}, "vae.n_layers is -1"),
        ({"vae": {"width": 10, "n_heads": 4}}, r"vae.width is 10; it must be a multiple of vae.n_heads \(4\)"),
        ({"vae": {"table_width": 100}}, "vae.table_width is 100; it must be a multiple of"),
        ({"vae": {"layout": "published", "n_cross_heads": 5}}, r"vae.width is 64; .* vae.n_cross_heads \(5\)"),
        ({"vae": {"dropout": 1.0}}, "vae.dropout is 1.0"),
        ({"vae": {"attribute_dropout": 1.5}}, "vae.attribute_dropout is 1.5"),
        ({"vae": {"read_out_std": 0.0}}, "vae.read_out_std is 0.0"),
        ({"vae": {"kl_weight": -0.1}}, "vae.kl_weight is -0.1"),
        ({"vae": {"dispersion_by": "batch"}}, "vae.dispersion_by is 'batch', which is not among data.conditions"),
        ({"prior": {"width": 9, "n_heads": 3}}, "prior.width is 9; it must be even"),
        ({"prior": {"attribute_dropout": 1}}, "prior.attribute_dropout is 1"),
        ({"prior": {"time_scale": 0}}, "prior.time_scale is 0"),
        ({"data": {"validation_fraction": 1}}, "data.validation_fraction is 1"),
        ({"data": {"min_cells_per_gene": 0}}, "data.min_cells_per_gene is 0"),
        ({"vae_training": {"cells": 0}}, "vae_training.cells is 0"),
        ({"prior_training": {"learning_rate": 0}}, "prior_training.learning_rate is 0"),
        ({"prior_training": {"ema_decay": 1}}, "prior_training.ema_decay is 1"),
        ({"vae_training": {"clip_norm": 0}}, "vae_training.clip_norm is 0"),
        ({"vae_training": {"patience": -1}}, "vae_training.patience is -1"),
        (
            {"vae_training": {"batch_size": 100, "gradient_accumulation": 3}},
            r"vae_training.batch_size is 100; it must be a multiple of gradient_accumulation \(3\)",
        ),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "zero"}, "'seed' must be an int, not str 'zero'"),
        ([], "The configuration must be a mapping of keys to values, not list"),
    ],
)
def test_mistakes_are_named_by_their_full_key(values, message):
    with pytest.raises(UserError, match=message):
        RunConfig.from_dict(values)


@pytest.mark.parametrize("section", [VAEConfig, PriorConfig, TrainingConfig, DataConfig, RunConfig])
def test_sections_are_frozen_and_every_field_is_explained(section):
    config = section()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(section)[0].name, None)


def test_file_is_named_in_its_errors(tmp_path):
    path = tmp_path / "run.yaml"
    with pytest.raises(UserError, match=r"no configuration file at '.*run.yaml'"):
        load_config(path)
    path.write_text("vae: {width: [}")
    with pytest.raises(UserError, match=r"run.yaml' is not valid YAML: .*line 1"):
        load_config(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"run.yaml' is not valid YAML"):
        load_config(path)
    path.write_text("vae: {widht: 3}")
    with pytest.raises(UserError, match=r"In '.*run.yaml': Unknown key 'vae.widht'; did you mean 'width'"):
        load_config(path)


def test_yaml_cannot_run_code(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []")
    with pytest.raises(UserError, match="not valid YAML"):
        load_config(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_name_their_data(path):
    assert load_config(path).data.path is not None
    assert set(yaml.safe_load(path.read_text())) <= {field.name for field in dataclasses.fields(RunConfig)}


def test_choices_are_what_is_registered():
    allowed = get_type_hints(VAEConfig)["likelihood"], get_type_hints(PriorConfig)["time_distribution"]
    assert [set(get_args(kind)) for kind in allowed] == [set(LIKELIHOODS), set(TIME_SAMPLERS)]


def test_choices_are_checked_by_name_from_python_too():
    """In a process of its own: here, the checks of types would come first."""
    program = """
from scldm.config import PriorConfig, VAEConfig
for section, choice in (
    (VAEConfig, {"likelihood": "negative_binomal"}),
    (VAEConfig, {"layout": "wid"}),
    (PriorConfig, {"time_distribution": "unifrom"}),
    (VAEConfig, {"likelihood": "poisson", "dispersion_by": "x"}),
):
    try:
        section(**choice)
    except ValueError as error:
        print(error)
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told[0].startswith("vae.likelihood is 'negative_binomal'; did you mean 'negative_binomial'")
    assert told[1].startswith("vae.layout is 'wid'; did you mean 'wide'")
    assert told[2].startswith("prior.time_distribution is 'unifrom'; did you mean 'uniform'")
    assert "no effect on poisson counts; set vae.likelihood to one of negative_binomial, zero_inflated" in told[3]

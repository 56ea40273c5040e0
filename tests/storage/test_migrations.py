from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from scldm.model import ScLDM
from scldm.storage.migrations import FORMAT_VERSION, MIGRATIONS, Content, migrated
from scldm.tasks.reconstruction import reconstruct

FIXTURES = Path(__file__).parents[1] / "fixtures"
SEEDINGS = {4: "32-bit", 5: "64-bit"}

REQUESTS = {
    "plain": {"n_cells": 300, "conditions": {"cell_type": "T cell"}, "seed": 3, "steps": 5},
    "guided": {
        "n_cells": 40,
        "conditions": {"cell_type": "B cell", "batch": "two"},
        "guidance": {"cell_type": 2.0},
        "seed": 4,
        "solver": "midpoint",
        "steps": 4,
    },
    "few_step": {"n_cells": 40, "conditions": {"age": 61.5}, "guidance": 2.0, "seed": 5, "solver": "few_step"},
    "given_depth": {
        "n_cells": 40,
        "depth": 200,
        "genes": [f"GENE{i}" for i in (5, 3, 40)],
        "seed": 2**40 + 6,
        "steps": 3,
        "solver": "euler",
    },
}


@pytest.fixture(scope="module", params=SEEDINGS)
def version(request: pytest.FixtureRequest) -> int:
    """A format of the past."""
    return request.param


@pytest.fixture(scope="module")
def stored(version: int) -> Path:
    """A model of that format, and the cells that it gave at the time."""
    return FIXTURES / f"format-{version}"


@pytest.fixture(scope="module")
def model(stored: Path) -> ScLDM:
    torch.set_num_threads(1)
    return ScLDM.load(stored / "model", device="cpu")


@pytest.fixture(scope="module")
def cells(stored: Path) -> dict[str, np.ndarray]:
    with np.load(stored / "cells.npz") as content:
        return dict(content)


def assert_same_counts(found: np.ndarray, expected: np.ndarray) -> None:
    # Another processor may round a mean differently, and a count in thousands with it.
    assert found.shape == expected.shape
    assert (found != expected).mean() < 1e-3


@pytest.mark.filterwarnings("ignore:never observed")
@pytest.mark.parametrize("name", REQUESTS)
def test_a_model_of_the_past_gives_the_cells_that_it_gave(model, cells, name):
    found = model.sample(**REQUESTS[name])
    np.testing.assert_allclose(found.obsm["X_scldm"], cells[f"{name}.latents"], rtol=1e-4, atol=1e-4)
    assert_same_counts(found.X.toarray(), cells[f"{name}.counts"])


def test_a_model_of_the_past_encodes_and_reconstructs_as_it_did(model, cells):
    adata = tiny.tiny_adata()
    np.testing.assert_allclose(model.get_latent_representation(adata), cells["encoded"], rtol=1e-4, atol=1e-5)
    assert_same_counts(reconstruct(model.trained, adata, seed=7).X.toarray(), cells["reconstructed"])


def test_a_model_of_the_past_keeps_its_fingerprint_and_its_seeding(model, cells, version):
    assert model.hash() == str(cells["hash"])
    assert model.config.seeding == SEEDINGS[version]
    # Settings that came later have the value that changes nothing.
    assert model.config.prior.joint_attribute_dropout == model.config.vae.joint_attribute_dropout == 0.0


def test_saving_it_again_writes_the_newest_format_and_the_same_model(model, tmp_path):
    model.save(tmp_path / "model")
    again = ScLDM.load(tmp_path / "model", device="cpu")
    assert f'"format_version": {FORMAT_VERSION}' in (tmp_path / "model" / "config.json").read_text()
    assert again.hash() == model.hash()
    one, two = (m.sample(20, seed=1, steps=2) for m in (again, model))
    assert (one.X != two.X).nnz == 0


def test_reading_changes_nothing_on_the_disk(stored, tmp_path):
    directory = Path(shutil.copytree(stored / "model", tmp_path / "model"))
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    ScLDM.load(directory, device="cpu")
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == before


def test_there_is_one_step_from_every_format_to_the_next():
    assert sorted(MIGRATIONS) == list(range(min(MIGRATIONS), FORMAT_VERSION))
    newest = Content({"config": {}}, {}, {}, {})
    assert migrated(newest, FORMAT_VERSION) is newest

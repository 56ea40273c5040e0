from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scldm.errors import UserError
from scldm.model import ScLDM
from scldm.seals import write_sealed
from scldm.storage.card import model_card
from scldm.storage.directory import FILES, SEAL, check_model_directory_can_be_made, read_model
from scldm.storage.migrations import FORMAT_VERSION

FAST = {"steps": 2}


@pytest.fixture
def directory(model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the saved model, to be damaged."""
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def load(directory: Path) -> ScLDM:
    """Open a directory whose checksums are right: what is damaged otherwise has to be found by other means."""
    if all((directory / name).is_file() for name in FILES):
        write_sealed(directory / SEAL, {"format_version": FORMAT_VERSION}, [directory / name for name in FILES])
    return ScLDM.load(directory, device="cpu")


# Round trip ------------------------------------------------------------------------------------------------------


def test_loaded_model_is_the_saved_one(trained, model_dir):
    loaded = load(model_dir)
    assert loaded.hash() == trained.hash()
    assert loaded.config == trained.config
    assert loaded.schema == trained.schema
    assert loaded.training_summary == trained.training_summary
    request = dict(conditions={"cell_type": ["B cell", "T cell"] * 50, "age": 30.0}, guidance=2.0, **FAST)
    ours, theirs = loaded.sample(**request), trained.sample(**request)
    assert (ours.X != theirs.X).nnz == 0
    assert (ours.obsm["X_scldm"] == theirs.obsm["X_scldm"]).all()
    assert ours.uns["scldm"] == theirs.uns["scldm"]


def test_few_step_solver_is_part_of_the_model(trained, model_dir, directory):
    ours, theirs = (model.sample(50, solver="few_step", seed=1) for model in (load(model_dir), trained))
    assert np.array_equal(ours.obsm["X_scldm"], theirs.obsm["X_scldm"])
    path = directory / "prior.safetensors"
    weights = load_file(path)
    weights["few_step.4.guided.weights"] *= 2
    save_file(weights, path)
    assert load(directory).hash() != trained.hash()
    del weights["few_step.4.guided.weights"]
    save_file(weights, path)
    with pytest.raises(
        UserError, match=r"damaged: the coefficients 'few_step\.4\.guided\.times' do not belong together"
    ):
        load(directory)


def test_saving_a_loaded_model_writes_the_same_files(model_dir, tmp_path):
    load(model_dir).save(tmp_path / "again")
    for path in model_dir.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_directory_holds_all_that_is_needed_and_nothing_else(trained, model_dir):
    assert sorted(p.name for p in model_dir.iterdir()) == sorted([*FILES, SEAL, "metrics.jsonl", "model_card.md"])
    assert {p.suffix for p in model_dir.iterdir()} == {".json", ".jsonl", ".safetensors", ".md"}
    assert json.loads((model_dir / "config.json").read_text())["format_version"] == FORMAT_VERSION
    assert len((model_dir / "metrics.jsonl").read_text().splitlines()) == 6
    moments = load_file(model_dir / "prior.safetensors")["latent_mean"]
    assert torch.equal(moments, trained.trained.statistics.mean)


def test_loaded_model_has_no_cells_to_train_on(model_dir):
    with pytest.raises(UserError, match=r"loaded from a directory and has no training cells"):
        load(model_dir).train()


def test_loading_executes_nothing(directory, monkeypatch):
    """A pickle that would run code lies in the directory; nobody opens it, whatever it is called."""

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    for name in ("model.pkl", "vae.pt", "schema.pickle", "pytorch_model.bin"):
        (directory / name).write_bytes(pickle.dumps(Trap()))
    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("a pickle was opened"))
    cells = load(directory).sample(3, **FAST)
    assert cells.n_obs == 3


def test_weights_file_that_is_a_pickle_is_refused(directory):
    # Copies: the tensors that were read lie in the very file that is overwritten.
    weights = {name: weight.clone() for name, weight in load_file(directory / "vae.safetensors").items()}
    torch.save(weights, directory / "vae.safetensors")
    with pytest.raises(UserError, match=r"vae.safetensors' is damaged"):
        load(directory)


def test_hash_changes_with_any_weight_and_with_the_schema(directory):
    before = load(directory).hash()
    assert len(before) == 16
    int(before, 16)
    weights = load_file(directory / "vae.safetensors")
    name = sorted(weights)[0]
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, directory / "vae.safetensors")
    changed = load(directory).hash()
    assert changed != before
    edit(directory / "schema.json", lambda schema: schema["genes"].reverse())
    assert load(directory).hash() not in (before, changed)


def test_model_card_tells_what_can_be_asked_for(model_dir):
    card = (model_dir / "model_card.md").read_text()
    assert card == model_card(read_model(model_dir))
    for text in (
        "120 cells (108 trained on, 12 for validation)",
        "60 genes",
        "T cell (",
        "| age | continuous |",
        "720",
    ):
        assert text in card


# Damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(UserError, match=f"is not a model directory: {name} is missing"):
        load(directory)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_file_is_named(directory, name, share):
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=name):
        load(directory)


def test_missing_metrics_do_no_harm(directory):
    (directory / "metrics.jsonl").unlink()
    (directory / "model_card.md").unlink()
    assert load(directory).sample(2, **FAST).n_obs == 2


@pytest.mark.parametrize(("name", "known"), [("config.json", FORMAT_VERSION), ("schema.json", 1)])
def test_newer_format_says_to_update(directory, name, known):
    edit(directory / name, lambda content: content.update(format_version=known + 1))
    message = rf"format version {known + 1}, this scldm reads up to {known}; update scldm"
    with pytest.raises(UserError, match=message):
        load(directory)


def test_older_format_says_to_train_again(directory):
    edit(directory / "config.json", lambda content: content.update(format_version=1))
    with pytest.raises(UserError, match=r"format version 1, .* train the model again"):
        load(directory)


@pytest.mark.parametrize("change", [
    lambda content: content.pop("format_version"),
    lambda content: content.pop("training"),
    lambda content: content["training"].pop("vae"),
    lambda content: content["config"].update(unknown_section={}),
    lambda content: content["config"]["vae"].update(width="wide"),
    lambda content: content.update(format_version="one"),
    lambda content: content["training"].update(n_training_cells="many"),
    lambda content: content["training"]["vae"].update(best_loss=[]),
])  # fmt: skip
def test_damaged_config_is_refused(directory, change):
    edit(directory / "config.json", change)
    with pytest.raises(UserError):
        load(directory)


@pytest.mark.parametrize(("name", "text", "message"), [
    ("metrics.jsonl", b"\xff\xfe", "metrics.jsonl' is damaged, it is not text"),
    ("config.json", b"\xff\xfe", "config.json' is damaged, it is not text"),
    ("schema.json", b"[" * 100_000, "schema.json' is damaged, it is not valid JSON"),
])  # fmt: skip
def test_files_that_are_no_text_or_no_json_are_named(directory, name, text, message):
    (directory / name).write_bytes(text)
    with pytest.raises(UserError, match=message):
        load(directory)


def test_a_number_that_is_not_finite_in_the_schema_is_refused(directory):
    edit(directory / "schema.json", lambda content: content.update(n_cells=float("inf")))
    with pytest.raises(UserError, match="schema is damaged: OverflowError"):
        load(directory)


@pytest.mark.parametrize("name", ["vae.safetensors", "prior.safetensors"])
@pytest.mark.parametrize("damage", ["shape", "missing", "surplus"])
def test_weights_that_do_not_belong_are_named(directory, name, damage):
    weights = load_file(directory / name)
    victim = sorted(key for key in weights if "blocks" in key and weights[key].ndim == 2)[0]
    if damage == "shape":
        weights[victim] = weights[victim][:-1].clone()
    elif damage == "missing":
        del weights[victim]
    else:
        victim = "stranger"
        weights[victim] = torch.zeros(2)
    save_file(weights, directory / name)
    with pytest.raises(UserError, match=rf"'{victim}'.*{name}"):
        load(directory)


@pytest.mark.parametrize("moment", ["latent_mean", "latent_std"])
def test_latent_statistics_have_to_be_there_and_fit(directory, moment):
    path = directory / "prior.safetensors"
    weights = load_file(path)
    save_file({**weights, moment: weights[moment][:-1].clone()}, path)
    with pytest.raises(UserError, match=rf"{moment}.*shape"):
        load(directory)
    del weights[moment]
    save_file(weights, path)
    with pytest.raises(UserError, match="no latent statistics"):
        load(directory)


def test_what_is_not_a_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no model directory"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"'.*file'"):
        load(tmp_path / "file")


# Overwriting -----------------------------------------------------------------------------------------------------


def test_existing_model_is_replaced_only_on_demand(trained, directory):
    stamp = (directory / "vae.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match="exists already; pass --overwrite"):
        trained.save(directory)
    assert (directory / "vae.safetensors").stat().st_mtime_ns == stamp
    trained.save(directory, overwrite=True)
    assert (directory / "vae.safetensors").stat().st_mtime_ns != stamp
    assert load(directory).hash() == trained.hash()
    assert [p.name for p in directory.parent.iterdir()] == ["model"]


# A directory of some other tool may well have a config.json.
@pytest.mark.parametrize("names", [["notes.txt"], ["config.json"], ["config.json", "model.safetensors"]])
def test_directory_that_is_not_a_model_is_never_deleted(trained, tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match="exists and holds other things than a model"):
        trained.save(tmp_path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert {(tmp_path / name).read_text() for name in names} == {"precious"}


def test_empty_directory_is_used_on_demand(trained, tmp_path):
    (tmp_path / "model").mkdir()
    trained.save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model").hash() == trained.hash()


def test_impossible_places_are_refused_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a directory"):
        check_model_directory_can_be_made(tmp_path / "file", overwrite=True)
    with pytest.raises(UserError, match="cannot be made"):
        check_model_directory_can_be_made(tmp_path / "file" / "model", overwrite=False)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="no permission to write"):
        check_model_directory_can_be_made(tmp_path / "model", overwrite=False)


def test_failure_while_saving_leaves_nothing(trained, tmp_path, monkeypatch):
    def dying(*_):
        raise OSError("disk full")

    monkeypatch.setattr("scldm.storage.directory.model_card", dying)
    with pytest.raises(OSError, match="disk full"):
        trained.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []

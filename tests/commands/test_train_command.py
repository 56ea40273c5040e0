from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny
import yaml
from safetensors.torch import load, load_file

from scldm import ScLDM
from scldm.cli import main
from scldm.config import load_config
from scldm.data.stores.unpacked import UnpackedStore

CONTENT = {
    "checksums.json",
    "config.json",
    "schema.json",
    "vae.safetensors",
    "prior.safetensors",
    "metrics.jsonl",
    "model_card.md",
}


class Straight(NamedTuple):
    """A configuration, the model directory made of it, and what was printed to stdout and stderr."""

    config: Path
    output: Path
    out: str
    err: str


#: Leaves out the longest part of a tiny training, where it does not matter.
NO_FEW_STEP = "--prior.few-step-evaluations"


@pytest.fixture(scope="module")
def straight(cells_file, tmp_path_factory) -> Straight:
    """What ``train`` makes of the configuration, without interruptions, and what it prints; not to be changed."""
    directory = tmp_path_factory.mktemp("straight")
    config = tiny.write_config(directory / "tiny.yaml", cells_file)
    output = directory / "runs" / "model"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main(["train", str(config), "--output", str(output), "--device", "cpu"])
    return Straight(config, output, out.getvalue(), err.getvalue())


def test_makes_a_model_directory_and_nothing_else(straight):
    output = straight.output
    assert {p.name for p in output.iterdir()} == CONTENT
    assert [p.name for p in output.parent.iterdir()] == ["model"]
    assert sorted(p.name for p in output.parents[1].iterdir()) == ["runs", "tiny.yaml"]
    assert f"wrote {output}" in straight.out
    assert "120 cells, 60 genes" in straight.err
    assert "error" not in straight.err
    assert json.loads((output / "config.json").read_text())["config"] == load_config(straight.config).to_dict()
    stages = [json.loads(line)["stage"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert stages == ["vae"] * 3 + ["prior"] * 3
    assert ScLDM.load(output, device="cpu").schema.attribute_names == ("cell_type", "batch", "age")


def test_never_overwrites_unless_told_to(run, straight, config_file, tmp_path, capsys):
    output = shutil.copytree(straight.output, tmp_path / "model")
    old = (output / "prior.safetensors").read_bytes()
    words = ["train", str(config_file), "--output", str(output), "--device", "cpu", "--seed", "5", NO_FEW_STEP]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert (output / "prior.safetensors").read_bytes() == old
    run(*words, "--overwrite")
    new = load_file(output / "prior.safetensors")
    assert any((new[name] != tensor).any() for name, tensor in load(old).items() if name in new)
    assert json.loads((output / "config.json").read_text())["config"]["seed"] == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "tiny.yaml"]


def test_backed_training_is_the_same_training(run, straight, config_file, tmp_path, monkeypatch):
    """In memory, unpacked, and from the file itself: the same weights; the unpacked counts are gone with the run."""
    written = []
    write = UnpackedStore.write.__func__
    monkeypatch.setattr(
        UnpackedStore, "write", classmethod(lambda cls, d, *rest: (written.append(d.name), write(cls, d, *rest))[1])
    )
    variants = {"unpacked": ("--data.backed",), "file": ("--data.backed", "--data.no-unpack")}
    weights = {"memory": [(straight.output / f"{part}.safetensors").read_bytes() for part in ("vae", "prior")]}
    for name, options in variants.items():
        run("train", config_file, "--output", tmp_path / name, "--device", "cpu", *options)
        weights[name] = [(tmp_path / name / f"{part}.safetensors").read_bytes() for part in ("vae", "prior")]
        assert {p.name for p in (tmp_path / name).iterdir()} == CONTENT
    assert written == ["counts"]
    assert weights["unpacked"] == weights["memory"] == weights["file"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*variants, "tiny.yaml"])


def test_default_output_is_named_after_the_configuration(run, config_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, _ = run("train", config_file, "--dry-run")
    assert "# would write checkpoints/tiny" in out


def test_dry_run_prints_the_whole_configuration_and_leaves_nothing(run, config_file, tmp_path):
    out, _ = run(
        *("train", config_file, "--output", tmp_path / "model", "--dry-run"),
        *("--seed", "7", "--data.conditions", "cell_type", "--data.continuous", "--vae.n-latents", "4"),
        *("--vae.dispersion-by", "cell_type", "--vae-training.betas", "0.8", "0.9", "--data.backed"),
        *("--prior-training.learning-rate", "1e-4", "--data.missing-labels", "unlabelled"),
    )
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]
    (tmp_path / "resolved.yaml").write_text(out)
    config, plain = load_config(tmp_path / "resolved.yaml"), load_config(config_file)
    assert config.seed == 7
    assert (config.data.conditions, config.data.continuous, config.data.backed) == (("cell_type",), (), True)
    assert (config.vae.n_latents, config.vae.dispersion_by) == (4, "cell_type")
    assert config.vae_training.betas == (0.8, 0.9)
    assert config.prior_training.learning_rate == 1e-4
    # What is not overridden is what the file says.
    assert config.vae.table_width == plain.vae.table_width == 16
    assert config.prior == plain.prior
    assert "120 cells, 60 genes" in out
    assert "parameters in the autoencoder" in out


@pytest.mark.parametrize("stage", ["vae", "prior"])
def test_interrupted_training_continues_with_the_same_command(
    stage, run, straight, config_file, tmp_path, monkeypatch, capsys
):
    words = ["train", str(config_file), "--output", str(tmp_path / "model"), "--device", "cpu"]
    train = ScLDM.train

    def interrupted(self, directory, **options):
        def on_step(name, step):
            if (name, step) == (stage, 17):
                raise KeyboardInterrupt

        return train(self, directory, **options, on_step=on_step)

    with monkeypatch.context() as patch:
        patch.setattr(ScLDM, "train", interrupted)
        with pytest.raises(SystemExit) as stop:
            main(words)
    assert stop.value.code == 130
    err = capsys.readouterr().err
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.training", "tiny.yaml"]

    assert "would continue the run" in run(*words, "--dry-run")[0]
    _, err = run(*words)
    assert "continuing the run in" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "tiny.yaml"]
    for name in ("vae", "prior"):
        whole, resumed = (load_file(d / f"{name}.safetensors") for d in (straight.output, tmp_path / "model"))
        assert whole.keys() == resumed.keys()
        assert all((whole[key] == resumed[key]).all() for key in whole)


def test_conditions_and_sections_may_come_from_options_alone(run, cells_file, tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    out, _ = run("train", tmp_path / "empty.yaml", "--data.path", cells_file, "--data.conditions", "batch", "--dry-run",
                 "--output", tmp_path / "m")  # fmt: skip
    assert "conditions: batch (2 values)" in out
    assert tiny.CONDITIONS == ("cell_type", "batch")


def test_data_alone_is_enough(run, tmp_path, monkeypatch):
    tiny.tiny_adata().write_h5ad(tmp_path / "lung.h5ad")
    monkeypatch.chdir(tmp_path)
    out, _ = run("train", "--data.path", "lung.h5ad", "--data.conditions", "cell_type", "batch", "--dry-run")
    assert "# would write checkpoints/lung" in out
    assert "conditions: cell_type (3 values), batch (2 values)" in out


def test_options_that_the_readme_names(run, config_file, tmp_path):
    options = ("--data.backed", "--vae-training.compile", "--prior-training.compile", "--tracking.wandb")
    out, _ = run("train", config_file, *options, "--vae.n-latents", "16", "--vae.table-width", "64", "--dry-run")
    (tmp_path / "resolved.yaml").write_text(out)
    config = load_config(tmp_path / "resolved.yaml")
    assert config.data.backed
    assert config.tracking.wandb
    assert config.vae_training.compile
    assert config.prior_training.compile


def test_bf16_trains_both_stages_and_saves_float32(run, config_file, tmp_path):
    output = tmp_path / "model"
    _, err = run("train", config_file, "--output", output, "--device", "cpu", "--precision", "bf16", NO_FEW_STEP)
    assert "precision bf16" in err
    summary = json.loads((output / "config.json").read_text())["training"]
    first, last = (json.loads((output / "metrics.jsonl").read_text().splitlines()[i])["train_loss"] for i in (0, 2))
    assert last < first
    assert summary["vae"]["best_loss"] > 0
    for name in ("vae", "prior"):
        assert {str(t.dtype) for t in load_file(output / f"{name}.safetensors").values()} == {"torch.float32"}


@pytest.mark.slow
def test_compiled_training_follows_the_plain_one(run, config_file, tmp_path):
    """About two minutes of compilation; run with `pytest -m slow`."""
    losses = []
    for name, options in (("plain", ()), ("compiled", ("--vae-training.compile", "--prior-training.compile"))):
        # In a process of its own: the checks of shapes that tests put around every function cannot be compiled.
        command = [sys.executable, "-m", "scldm", "train", str(config_file), "--output", str(tmp_path / name)]
        # A rate at which the rounding of another order of sums stays what it is.
        gentle = ("--prior-training.learning-rate", "5e-3")
        subprocess.run([*command, "--device", "cpu", *gentle, *options], check=True, capture_output=True)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["validation_loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    weights = [load_file(tmp_path / name / "vae.safetensors") for name in ("plain", "compiled")]
    assert weights[0].keys() == weights[1].keys()


@pytest.mark.parametrize(
    ("words", "is_backed"),
    [
        ([], True),
        (["--data.backed"], True),
        (["--data.no-backed"], False),
        (["--data.no_backed"], False),
        (["--data.backed", "--data.unpack", "--vae-training.no-compile"], True),
    ],
)
def test_a_flag_may_ask_for_what_the_file_says_anyway(words, is_backed, run, config_file, tmp_path):
    content = yaml.safe_load(config_file.read_text())
    content["data"]["backed"] = True
    config_file.write_text(yaml.safe_dump(content))
    out, _ = run("train", config_file, *words, "--output", tmp_path / "new", "--dry-run")
    assert yaml.safe_load(out)["data"]["backed"] == is_backed

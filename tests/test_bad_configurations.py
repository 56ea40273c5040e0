"""Configurations that are none: one sentence that says where and what is allowed, soon and with little memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import tiny

from scldm.cli import main
from scldm.config import RunConfig, load_config
from scldm.errors import UserError
from scldm.strict_yaml import read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
DIGITS = "9" * 5000

#: Text of a file, and what the sentence has to hold.
FILES: dict[str, tuple[str | bytes, str]] = {
    "an alias bomb": (BOMB, "aliases"),
    "an alias bomb in a list": (f"data: {{conditions: [x]}}\n{BOMB}", "aliases"),
    "an alias that leads to itself": ("vae: &a {width: *a}", "leads to itself"),
    "an unknown alias": ("vae: *nothing", "undefined alias"),
    "a key twice": ("seed: 1\nseed: 2", "'seed' is there twice"),
    "a key twice in a section": ("vae: {width: 8, width: 16}", "'width' is there twice"),
    "a section twice": ("vae: {width: 8}\nprior: {}\nvae: {}", "'vae' is there twice"),
    "a Python object": ("seed: !!python/object:os.system {}", "could not determine a constructor"),
    "a Python call": ("seed: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "a tag of its own": ("seed: !secret 3", "could not determine a constructor"),
    "a date": ("seed: 2020-01-01", "'seed' must be an int"),
    "a date that is none": ("seed: 2020-13-45", "'seed' must be an int"),
    "a time": ("vae_training: {batch_size: 1:30}", "must be an int"),
    "an octal number": ("seed: 010", "'seed' must be an int"),
    "a binary number": ("seed: !!binary aGVsbG8=", "'seed' must be an int"),
    "a set": ("seed: !!set {a, b}", "'seed' must be an int"),
    "a number of 5,000 digits": (f"seed: {DIGITS}", "digits"),
    "a negative number of 5,000 digits": (f"seed: -{DIGITS}", "digits"),
    "a width of 5,000 digits": (f"vae: {{width: {DIGITS}}}", "digits"),
    "a fraction of 5,000 digits": (f"vae: {{kl_weight: {DIGITS}.5}}", "kl_weight is inf"),
    "a hexadecimal width": ("vae: {width: 0xFFFFFFFF}", "may be at most 65,536"),
    "an infinite learning rate": ("vae_training: {learning_rate: .inf}", "learning_rate is inf; it must be finite"),
    "a learning rate that overflows": ("vae_training: {learning_rate: 1e999}", "learning_rate is inf"),
    "a learning rate that is none": ("prior_training: {learning_rate: .nan}", "prior_training.learning_rate is nan"),
    "a negative infinite weight": ("vae: {kl_weight: -.inf}", "kl_weight is -inf"),
    "a rate that is no number": ("vae: {kl_weight: much}", "'vae.kl_weight' must be"),
    "a beta that is none": ("vae_training: {betas: [0.9, .nan]}", "betas is nan"),
    "three betas": ("vae_training: {betas: [0.9, 0.9, 0.9]}", "must have 2 entries"),
    "a beta": ("vae_training: {betas: 0.9}", "must be a list"),
    "a billion layers": ("prior: {n_layers: 1000000000}", "n_layers is 1000000000; it may be at most 1,000"),
    "1e9 layers": ("prior: {n_layers: 1e9}", "prior.n_layers"),
    "layers as a fraction": ("prior: {n_layers: 1.5}", "'prior.n_layers' must be an int"),
    "no layer": ("prior: {n_layers: 0}", "must be at least 1"),
    "a huge width": ("vae: {width: 1000000000}", "may be at most 65,536"),
    "a huge batch": ("vae_training: {batch_size: 1000000000000}", "may be at most 10,000,000"),
    "a huge number of workers": ("vae_training: {data_workers: 100000}", "may be at most 1,024"),
    "huge few-step solvers": ("prior: {few_step_evaluations: [100000]}", "few_step_evaluations is 100000"),
    "a huge seed": ("seed: 99999999999999999999", "below 2^63"),
    "a negative seed": ("seed: -1", "must not be negative"),
    "a seed that is true": ("seed: true", "'seed' must be an int"),
    "a seed that is a list": ("seed: [1]", "'seed' must be an int"),
    "a seed that is nothing": ("seed:", "'seed' must be an int"),
    "a flag that is a number": ("data: {backed: 1}", "'data.backed' must be a bool"),
    "a path that is a number": ("data: {path: 3}", "'data.path' must be a str"),
    "conditions as one word": ("data: {conditions: cell_type}", "must be a list"),
    "a condition that is a number": ("data: {conditions: [3]}", "'data.conditions' must be a str"),
    "a section that is a number": ("vae: 3", "'vae' must be a mapping"),
    "a section that is nothing": ("vae:", "'vae' must be a mapping"),
    "a section that is a list": ("vae: [width]", "'vae' must be a mapping"),
    "a list": ("- 1\n- 2", "mapping of keys to values"),
    "a number": ("3", "mapping of keys to values"),
    "a word": ("hello", "mapping of keys to values"),
    "a number as key": ("3: 4", "Unknown key '3'"),
    "nothing as key": ("? \n: 4", "Unknown key"),
    "a list as key": ("? [1, 2]\n: 4", "not valid YAML"),
    "a key of megabytes": ("? " + "x" * 500_000 + "\n: 4", "Unknown key"),
    "a value of megabytes": (f"seed: {'x' * 500_000}", "'seed' must be an int"),
    "two documents": ("seed: 1\n---\nseed: 2", "another document"),
    "a tab": ("vae:\n\twidth: 8", "not valid YAML"),
    "an open bracket": ("data: [path", "not valid YAML"),
    "an open quote": ("data: {path: 'cells", "not valid YAML"),
    "a NUL": ("seed: \0", "not valid YAML"),
    "a control character": ("seed: \x1b[31m", "not valid YAML"),
    "an escape in a key": ('"\\e[31mred": 1', "Unknown key"),
    "not text": (b"\xff\xfe\x00\x01", "not a text file"),
    "Latin-1": ("data: {path: café}".encode("latin-1"), "not a text file"),
    "deep brackets": ("[" * 20_000, "not valid YAML"),
    "deep mappings": ("".join(f"{' ' * i}a:\n" for i in range(600)), "not valid YAML"),
    "a merge of nothing": ("vae: {<<: 3}", "expected a mapping"),
    "an unknown word": ("vae: {layout: wid}", "did you mean 'wide'"),
    "a likelihood that does not exist": ("vae: {likelihood: gauss}", "vae.likelihood"),
    "a solver of no evaluations": ("prior: {few_step_evaluations: [0]}", "must be at least 1"),
    "the same solver twice": ("prior: {few_step_evaluations: [4, 4]}", "differ"),
    "a dropout of one": ("prior: {dropout: 1}", "below 1"),
    "a joint dropout above one": ("vae: {joint_attribute_dropout: 1.2}", "joint_attribute_dropout is 1.2"),
    "a fraction above one": ("data: {validation_fraction: 2}", "above 0 and below 1"),
    "a fraction that is none": ("data: {validation_fraction: .nan}", "validation_fraction is nan"),
    "a precision that does not exist": ("precision: float16", "'precision' is 'float16'"),
    "a seeding that does not exist": ("seeding: 16-bit", "'seeding' is '16-bit'"),
    "an unhashable choice": ("precision: [auto]", "'precision'"),
    "a mapping for a choice": ("vae: {layout: {a: 1}}", "vae.layout"),
    "a misspelt section": ("vea: {}", "did you mean 'vae'"),
    "a key of another section": ("vae: {n_layer: 3}", "did you mean 'n_layers'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path: Path, name: str) -> None:
    text, fragment = FILES[name]
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.process_time()
    with pytest.raises(UserError) as refusal:
        load_config(path)
    message = str(refusal.value)
    assert fragment in message
    assert f"'{path}'" in message
    assert len(message) < 2000
    assert "\x1b" not in message
    assert "\n" not in message
    assert time.process_time() - started < 20  # seconds of a computation that never ended


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "socket", "huge"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**32)
    with pytest.raises(UserError, match=r"run\.yaml|/dev/zero"):
        load_config(path)


def test_what_is_meant_is_read():
    assert read_yaml("a: 1_000\nb: -3\nc: 0x1F\nd: 1.5e-3\ne: yes\nf: 010\ng: 1:30\nh: 2020-01-01\ni: ~") == {
        "a": 1000, "b": -3, "c": 31, "d": 1.5e-3, "e": True, "f": "010", "g": "1:30", "h": "2020-01-01", "i": None,
    }  # fmt: skip
    assert read_yaml("base: &b {width: 8}\nvae: {<<: *b, n_layers: 1}")["vae"] == {"width": 8, "n_layers": 1}
    assert read_yaml("") is None
    assert read_yaml("\ufeffseed: 1") == {"seed": 1}


def test_every_configuration_comes_back(tmp_path: Path) -> None:
    config = tiny.tiny_config(vae=tiny.tiny_vae())
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "run.yaml") == config
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + config.to_yaml().encode())
    assert load_config(tmp_path / "bom.yaml") == config


def test_a_network_larger_than_memory_is_refused_before_it_is_made(tmp_path: Path, capsys) -> None:
    tiny.tiny_adata().write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "run.yaml").write_text("data: {path: cells.h5ad}\nprior: {width: 65536, n_layers: 200}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for more in (["--dry-run"], ["--output", "model", "--device", "cpu"]):
            with pytest.raises(SystemExit) as stop:
                main(["train", "run.yaml", *more])
            assert stop.value.code == 2
            assert "GB for weights and optimiser alone" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad", "run.yaml"]


@pytest.mark.parametrize("value", [10**5000, -(10**5000)], ids=["positive", "negative"])
def test_numbers_of_many_digits_from_python(value: int) -> None:
    with pytest.raises(UserError, match="digits"):
        RunConfig(seed=value)

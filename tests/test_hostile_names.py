"""What a category, a gene or a column is called can do nothing: not in a terminal, a report, a file, or a table."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import tiny

from scldm.cli import main
from scldm.config import DataConfig
from scldm.errors import LONGEST_MESSAGE, UserError, printable
from scldm.model import ScLDM
from scldm.storage.directory import FILES, SEAL

NAMES = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</style><script>alert(1)</script>", "'\"><b>",
    "&amp;", "$\\frac{1}{2}$", "$unfinished", "a$b$c", "\\", "%s %d {0} {name}", "{{ 7 * 7 }}", "{% for %}",
    "\x1b[31mred\x1b[0m", "a\nb", "a\tb", "a\rb", "\u202ereversed", "\u2028line", "../../etc/passwd",
    "/etc/passwd", "C:\\x", "~", "-rf", "--help", "=1+1", "+1", "@SUM(A1)", "|pipe|", "`tick`", "**bold**",
    "[link](javascript:alert(1))", "NaN", "nan", "None", "true", "é", "日本語", "😀", " ", "x" * 150,
)  # fmt: skip


def hostile_cells(n_cells: int = 200) -> ad.AnnData:
    """Cells whose categories, genes and columns are called like that; a few names at a time as categories."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 2.0, len(NAMES)) + 0.5, (n_cells, len(NAMES))).astype(np.float32)
    obs = pd.DataFrame(
        {NAMES[0]: np.array(NAMES[:8])[np.arange(n_cells) % 8], "=2+2": np.array(NAMES[12:15])[np.arange(n_cells) % 3]},
        index=[f"{NAMES[i % len(NAMES)]}{i}" for i in range(n_cells)],
    )
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list(NAMES)))


class Tags(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def run(capsys, *words: object) -> str:
    main([str(word) for word in words])
    said = capsys.readouterr()
    return said.out + said.err


def check_terminal(text: str) -> None:
    assert not [c for c in text if ord(c) < 32 and c not in "\n\r\t"]
    assert "\u202e" not in text


def test_the_whole_chain_with_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = hostile_cells()
    cells[:140].copy().write_h5ad(tmp_path / "train.h5ad")
    cells[140:].copy().write_h5ad(tmp_path / "real.h5ad")
    config = tiny.tiny_config(vae=tiny.tiny_vae())
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    train = [
        "train",
        tmp_path / "run.yaml",
        "--data.path",
        tmp_path / "train.h5ad",
        "--data.conditions",
        NAMES[0],
        "=2+2",
    ]
    check_terminal(run(capsys, *train, "--output", tmp_path / "model", "--device", "cpu"))
    check_terminal(run(capsys, "info", tmp_path / "model"))
    like = ["--like", tmp_path / "real.h5ad", "--steps", 1, "--output", tmp_path / "made.h5ad", "--device", "cpu"]
    check_terminal(run(capsys, "sample", tmp_path / "model", *like))
    made = ad.read_h5ad(tmp_path / "made.h5ad")
    assert list(made.var_names) == list(NAMES)
    assert set(made.obs[NAMES[0]]) <= set(NAMES)
    judge = ["evaluate", tmp_path / "real.h5ad", tmp_path / "made.h5ad", "--train", tmp_path / "train.h5ad"]
    judge += ["--condition", NAMES[0], "=2+2", "--embedding", "pca", "--output", tmp_path / "judged"]
    check_terminal(run(capsys, *judge))

    page = (tmp_path / "judged" / "report.html").read_text()
    parser = Tags()
    parser.feed(page)
    assert not [a for tag, a in parser.found if tag == "img" and not str(a.get("src")).startswith("data:")]
    assert not [attributes for _, attributes in parser.found if any(name.startswith("on") for name in attributes)]
    assert not re.search(r"<script[^>]*>[^<]*alert", page)
    assert json.loads((tmp_path / "judged" / "metrics.json").read_text())["conditions"] == [NAMES[0], "=2+2"]
    card = (tmp_path / "model" / "model_card.md").read_text()
    assert "<script>alert" not in card
    names = {path.name for path in tmp_path.rglob("*")}
    model = {*FILES, SEAL, "metrics.jsonl", "model_card.md"}
    report = {"metrics.json", "report.html", "figure.png"}
    assert names == {"train.h5ad", "real.h5ad", "run.yaml", "model", "made.h5ad", "judged", *model, *report}


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name)[:20] for name in NAMES])
def test_a_refusal_repeats_a_name_as_it_can_be_shown(name: str) -> None:
    message = str(UserError(f"'{name}' is not known"))
    assert not [c for c in message if ord(c) < 32 or c in "\u202e\u2028"]
    if name.isprintable():
        assert name in message


def test_a_refusal_does_not_repeat_megabytes() -> None:
    message = str(UserError("x" * 10**7))
    assert len(message) < 2 * LONGEST_MESSAGE
    assert printable("short") == "short"
    assert printable("\ud800") == "\\ud800"


def test_slashes_in_names_nest_nothing(tmp_path: Path) -> None:
    cells = tiny.tiny_adata()
    cells.obs = cells.obs[["cell_type", "batch"]].rename(columns={"cell_type": "cell/type"})
    config = tiny.tiny_config(vae=tiny.tiny_vae(), data=DataConfig(conditions=("cell/type", "batch")))
    model = ScLDM(cells, config=config)
    model.train()
    made = model.sample(4, conditions={"cell/type": "T cell", "batch": "one"}, guidance={"cell/type": 2.0}, steps=1)
    assert made.uns["scldm"]["guidance"] == {"cell\u2215type": 2.0}

"""The code that CONTRIBUTING.md shows is code of the repository, word for word, and its paths exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: A block names its file in its first line.
BLOCKS = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, flags=re.DOTALL)


def test_there_is_an_example_each_for_a_metric_a_likelihood_a_store_and_a_task():
    rooms = {path.rsplit("/", 1)[0] for path, _ in BLOCKS}
    assert rooms >= {"scldm/evaluation/metrics", "scldm/vae/counts", "scldm/data/stores", "scldm/tasks"}


@pytest.mark.parametrize(("path", "code"), BLOCKS)
def test_an_example_is_code_of_the_repository(path, code):
    source = (ROOT / path).read_text(encoding="utf-8")
    # An ellipsis alone on a line stands for what is left out.
    for part in re.split(r"^ *\.\.\.\n", code, flags=re.MULTILINE):
        assert part.strip("\n") in source, part


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:scldm|tests|benchmarks|configs)/[\w./-]*)`", TEXT))))
def test_a_path_that_is_named_exists(path):
    assert (ROOT / path).exists()

"""Shapes and types in annotations are checked in every test; shared fixtures."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

# Before anything imports torch: the suite is many small computations, which threads only slow down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook("scldm", "beartype.beartype")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402

from scldm.model import ScLDM  # noqa: E402

# The same examples in every run, and none that fails because the machine is busy.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Spare the garbage collector the many objects of imported libraries: a tenth of the time of most tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def process_state() -> None:
    """Set what the whole process shares before each test: torch's number of threads, and accelerate's precision.

    Some libraries change the first under torch's feet (numba's first parallel function does, as in
    ``scanpy.pp.normalize_total``), and another number of threads rounds differently. The second is whatever the last
    accelerator asked for.
    """
    torch.set_num_threads(1)
    AcceleratorState._reset_state()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScLDM, Path]:
    """A tiny model, trained on the CPU, and the working directory of its training; not to be changed."""
    torch.set_num_threads(1)
    directory = tmp_path_factory.mktemp("trained-run")
    model = tiny.tiny_model()
    model.train(directory, accelerator=Accelerator(cpu=True))
    return model, directory


@pytest.fixture(scope="session")
def trained(trained_run: tuple[ScLDM, Path]) -> ScLDM:
    """A tiny trained model; not to be changed."""
    return trained_run[0]


@pytest.fixture(scope="session")
def model_dir(trained: ScLDM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny trained model as a model directory; not to be changed."""
    directory = tmp_path_factory.mktemp("saved") / "model"
    trained.save(directory)
    return directory


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save one pixel in place of every figure: drawing takes longer than everything else that a report needs."""

    def save(self: Figure, file: Any, **_: Any) -> None:
        Image.new("RGB", (1, 1)).save(file, format="png")

    monkeypatch.setattr(Figure, "savefig", save)

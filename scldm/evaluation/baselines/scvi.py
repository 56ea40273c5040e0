"""The baseline everyone knows: scVI, sampled from its prior. Needs scvi-tools, an extra of scldm."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import random
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from anndata import AnnData
from jaxtyping import Int
from scipy.sparse import csr_matrix

from scldm.errors import UserError
from scldm.evaluation.baselines.base import Baseline

__all__ = ["SCVI", "is_installed"]

N_EPOCHS = 80
#: Loggers of what trains it.
TALKATIVE = ("lightning.fabric", "lightning.pytorch", "lightning_fabric", "pytorch_lightning", "scvi")


def is_installed() -> bool:
    """Whether scvi-tools can be used."""
    return importlib.util.find_spec("scvi") is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class SCVI(Baseline):
    """scVI (Lopez et al. 2018) with its own defaults; the joint label is its batch key.

    A new cell is ``z ~ N(0, I)``, decoded with the label and the library size of a training cell; counts are drawn from
    the zero-inflated negative binomial. The module is the trained network.
    """

    description: ClassVar[str] = "scVI, prior samples; the combination of labels is its batch"

    module: Any

    @classmethod
    def fit(
        cls, counts: csr_matrix, labels: Int[np.ndarray, " cells"], *, n_epochs: int = N_EPOCHS, seed: int = 0
    ) -> SCVI:
        """Train the network on the CPU.

        Cells without any count are left out of the training; the seed is of the initial weights and the order of the
        cells. Raises ``UserError`` if scvi-tools is not installed.
        """
        if not is_installed():
            raise UserError("scVI needs scvi-tools, which is not installed: pip install scvi-tools")
        depths = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        kept = np.flatnonzero(depths > 0)
        cells = AnnData(counts[kept].astype(np.float32), obs={"label": labels[kept].astype(str)})
        cells.obs["label"] = cells.obs["label"].astype("category")
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as work:
            # They are about data loaders and devices, nothing that a reader could change.
            warnings.simplefilter("ignore")
            model = _train(cells, n_epochs, seed, work)
        # scVI numbers labels by their sorted names, which here are numbers as text
        known = {int(name): code for code, name in enumerate(cells.obs["label"].cat.categories)}
        codes = np.array([known.get(int(label), 0) for label in labels], dtype=np.int64)
        return cls(module=model.module.eval().cpu(), labels=codes, depths=depths)

    def _generate(self, donors: Int[np.ndarray, " cells"], rng: np.random.Generator) -> csr_matrix:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            return super()._generate(donors, rng)

    def _counts(self, donors: Int[np.ndarray, " cells"], rng: np.random.Generator) -> np.ndarray:
        depth = torch.as_tensor(np.maximum(self.depths[donors], 1e-8), dtype=torch.float32)
        generated = self.module.generative(
            z=torch.randn(len(donors), self.module.n_latent),
            library=depth.log()[:, None],
            batch_index=torch.as_tensor(self.labels[donors])[:, None],
            y=torch.zeros(len(donors), 1, dtype=torch.int64),
        )
        return generated["px"].sample().numpy()


def _train(cells: AnnData, n_epochs: int, seed: int, work: str) -> Any:
    with _seeded_and_quiet(seed) as scvi:
        scvi.model.SCVI.setup_anndata(cells, batch_key="label")
        model = scvi.model.SCVI(cells)
        model.train(
            max_epochs=n_epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=work,
        )
    return model


@contextlib.contextmanager
def _seeded_and_quiet(seed: int) -> Iterator[Any]:
    """Import scvi-tools, seed all that it seeds and splits by, and silence it; all is the caller's again afterwards."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    numbers, numpy_numbers, cudnn = random.getstate(), np.random.get_state(), torch.backends.cudnn
    choices = cudnn.deterministic, cudnn.benchmark
    try:
        with torch.random.fork_rng(devices=[]):
            import scvi  # which seeds, too

            settings = scvi.settings.seed, scvi.settings.verbosity
            try:
                for logger in loggers:
                    logger.setLevel(logging.ERROR)
                scvi.settings.seed, scvi.settings.verbosity = seed, logging.ERROR
                yield scvi
            finally:
                scvi.settings.seed, scvi.settings.verbosity = settings
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        random.setstate(numbers)
        np.random.set_state(numpy_numbers)
        cudnn.deterministic, cudnn.benchmark = choices

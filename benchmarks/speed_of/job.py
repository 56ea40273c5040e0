"""One measurement: what is measured and of which system, and what all measurements of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

CONDITION = "cell_type"
GUIDANCE = 2.0
#: Names of systems: ours where it samples, scVI's by measure, ours where the prior is trained, and all in the order of
#: the tables.
OURS = ("scldm, heun", "scldm, few_step")
SCVI = {"vae": ("scVI",), "encode": ("scVI",), "sample": ("scVI, posterior", "scVI, prior")}
PRIORS = (
    "scldm", "scldm, compiled", "scldm, bf16",
    "scldm, published network", "scldm, published network, compiled", "scldm, published network, bf16",
)  # fmt: skip
SYSTEMS = (*OURS, *PRIORS, "published", "scVI", "scVI, posterior", "scVI, prior")


@dataclass(frozen=True)
class Job:
    """One measurement, and the process that makes it."""

    measure: str
    system: str
    genes: int
    batch: int


@dataclass(frozen=True)
class Settings:
    """What all measurements of a run have in common."""

    work: str
    dataset: str
    device: str
    threads: int
    repeats: int
    count_flops: bool

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    def wait(self) -> None:
        if not self.on_cpu:
            torch.cuda.synchronize()

    def cells(self, genes: int) -> Path:
        return Path(self.work) / f"cells-{genes}.h5ad"

    def model(self, genes: int) -> Path:
        return Path(self.work) / f"model-{genes}"

"""How a stage is optimised, and where its metrics go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scldm.errors import require
from scldm.sections import HARMLESS, check_numbers

__all__ = ["TrackingConfig", "TrainingConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one of the two stages is optimised. Lengths count cells, so they do not depend on batch size or processes."""

    cells: int = 256_000
    """Cells to train on at most, repeats counted."""
    batch_size: int = 128
    """Cells per step of the optimiser, over all processes and accumulated batches."""
    gradient_accumulation: int = 1
    """Batches that one step of the optimiser is split into, to save memory."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    warmup_cells: int = 12_800
    """Cells over which the learning rate rises to its peak."""
    decay: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: cosine to zero at `cells`, or constant."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.99
    """Decay per step of the average of the weights, which is what is validated, saved and sampled."""
    compile: bool = False
    """Compile the network with torch.compile."""
    validate_every: int = 6_400
    """Cells between two validations."""
    patience: float = 0.5
    """The stage stops when validation has not improved for this multiple of the cells that led to its best value; 0
    never stops early."""
    keep: Literal["best", "last"] = "best"
    """Averaged weights that are kept: those of the best validation, or the last ones."""
    checkpoint_every: int = field(default=64_000, metadata=HARMLESS)
    """Cells between two checkpoints from which a killed run resumes."""
    data_workers: int = field(default=0, metadata=HARMLESS)
    """Worker processes that prepare batches; 0 prepares them in the training process."""

    def __post_init__(self) -> None:
        check_numbers(self, "")
        for name in ("cells", "batch_size", "gradient_accumulation", "validate_every", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("warmup_cells", "weight_decay", "patience", "data_workers"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must not be negative.")
        require(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}; it must be at least 0 and below 1.")
        require(
            all(0 <= b < 1 for b in self.betas), f"betas are {list(self.betas)}; both must be at least 0 and below 1."
        )
        require(self.learning_rate > 0, f"learning_rate is {self.learning_rate}; it must be positive.")
        require(self.clip_norm > 0, f"clip_norm is {self.clip_norm}; it must be positive.")
        require(
            self.batch_size % self.gradient_accumulation == 0,
            f"batch_size is {self.batch_size}; it must be a multiple of gradient_accumulation "
            f"({self.gradient_accumulation}).",
        )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where training metrics go besides metrics.jsonl, which is always written."""

    wandb: bool = field(default=False, metadata=HARMLESS)
    """Log to Weights & Biases (needs `pip install wandb`); WANDB_MODE=offline works."""
    project: str = field(default="scldm", metadata=HARMLESS)
    """Name of the wandb project."""
    name: str | None = field(default=None, metadata=HARMLESS)
    """Name of the wandb run."""

"""What happens when in a stage, as functions of the cells trained on so far."""

from __future__ import annotations

import math

from scldm.training.config import TrainingConfig

__all__ = ["is_due", "learning_rate_factor", "patience_is_out"]


def learning_rate_factor(config: TrainingConfig, cells: int) -> float:
    """Return the learning rate as a share of its peak: linear warm-up, then cosine to zero, or constant."""
    if cells < config.warmup_cells:
        return (cells + config.batch_size) / (config.warmup_cells + config.batch_size)
    if config.decay == "constant":
        return 1.0
    progress = (cells - config.warmup_cells) / max(1, config.cells - config.warmup_cells)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def is_due(every: int, cells: int, batch_size: int) -> bool:
    """Tell whether the step that ended at ``cells`` reached or passed a multiple of ``every``."""
    return cells // every > (cells - batch_size) // every


def patience_is_out(config: TrainingConfig, cells: int, best_cells: int) -> bool:
    """Tell whether validation has not improved for so long that the stage ends.

    Parameters
    ----------
    config
        Its ``patience`` counts in multiples of the cells that led to the best validation, or of the warm-up if that was
        longer.
    cells
        Cells trained on so far.
    best_cells
        Cells trained on at the best validation; 0 before the first one, when there is nothing to compare with.
    """
    if not config.patience or not best_cells:
        return False
    return cells - best_cells > config.patience * max(best_cells, config.warmup_cells)

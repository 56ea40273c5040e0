"""Mean losses, over the cells trained on since the last line of the log and over the validation cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from scldm.nn.objective import Objective
from scldm.seeds import Seeding, torch_rng
from scldm.training.distributed import sum_over_processes

__all__ = ["RunningLosses", "validation_losses"]

#: Most cells that are validated at a time.
VALIDATION_CELLS = 1024


class RunningLosses:
    """Sums of the losses of this process, kept on its device so that no step waits for them.

    Attributes
    ----------
    sums
        By name, tensors without dimensions.
    n_cells
        Cells that were added up.
    """

    def __init__(self, sums: Mapping[str, Tensor] | None = None, n_cells: int = 0) -> None:
        self.sums = dict(sums or {})
        self.n_cells = n_cells

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses per cell of a batch."""
        for name, values in losses.items():
            total = values.detach().sum()
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.n_cells += losses["loss"].shape[0]

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over the cells of all processes."""
        totals = torch.stack([*self.sums.values(), torch.tensor(float(self.n_cells), device=accelerator.device)])
        totals = sum_over_processes(totals, accelerator)
        return dict(zip(self.sums, (totals[:-1] / totals[-1]).tolist(), strict=True))


@torch.no_grad()
def validation_losses(
    objective: Objective,
    data: Any,
    batch_size: int,
    names: Sequence[str],
    stage: str,
    *,
    seed: int,
    seeding: Seeding,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Return the mean losses over the validation cells, with the same noise at every validation.

    Parameters
    ----------
    objective
        Put into evaluation mode.
    data
        ``data[indices]`` is a batch.
    batch_size
        Cells at a time, at most :data:`VALIDATION_CELLS`. The processes take turns.
    names
        Of the losses: a process that has nothing to validate has to know them.
    stage, seed, seeding
        What the noise follows from.
    accelerator
        All processes call this, and all get the result.
    """
    device = accelerator.device
    objective.eval()
    n_cells = len(data)
    block = max(1, min(batch_size, VALIDATION_CELLS))
    sums = {name: torch.zeros((), device=device) for name in names}
    for number, start in enumerate(range(0, n_cells, block)):
        if number % accelerator.num_processes != accelerator.process_index:
            continue
        cells = np.arange(start, min(start + block, n_cells))
        rng = torch_rng(seed, f"{stage}/validation", number, device, seeding)
        noise = objective.draw_noise(len(cells), rng)
        with accelerator.autocast():
            losses = objective(data[cells].to(device), noise)
        for name in names:
            sums[name] = sums[name] + losses[name].sum()
    totals = sum_over_processes(torch.stack(list(sums.values())), accelerator)
    return {name: float(total) / n_cells for name, total in zip(sums, totals, strict=True)}

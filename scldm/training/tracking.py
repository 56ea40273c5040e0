"""Where training metrics go: always a JSON-lines file, and Weights & Biases when asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scldm.config import RunConfig
from scldm.errors import UserError

__all__ = ["MetricsLog"]


class MetricsLog:
    """Append-only record of a run, one JSON object per line.

    Every line has ``stage``, ``step`` and ``cells`` (cells trained on so far) and the metrics of that moment.

    Parameters
    ----------
    path
        The ``metrics.jsonl`` to append to; None on processes that do not write.
    config
        The run; decides about wandb.
    """

    def __init__(self, path: Path | None, config: RunConfig) -> None:
        self.path = path
        self._wandb: Any = None
        if path is None or not config.tracking.wandb:
            return
        try:
            import wandb
        except ImportError:
            raise UserError(
                "tracking.wandb is on but wandb is not installed; run 'pip install scldm[wandb]'."
            ) from None
        # One wandb run per training run: resuming continues it under the same id. Its files go where wandb puts them
        # (./wandb, or WANDB_DIR): the working directory is removed at the end, and an offline run is uploaded later.
        identifier = path.with_name("wandb_run_id.txt")
        known = identifier.read_text() if identifier.exists() else None
        self._wandb = wandb.init(
            project=config.tracking.project,
            name=config.tracking.name,
            id=known,
            resume="allow",
            config=config.to_dict(),
        )
        identifier.write_text(self._wandb.id)

    def rewind(self, stage: str, step: int) -> None:
        """Forget what a killed run wrote about ``stage`` after the checkpoint at ``step``, which is trained again."""
        if self.path is None or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # A line cut off by the kill.
            if entry["stage"] != stage or entry["step"] <= step:
                kept.append(line)
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(kept))
        partial.replace(self.path)

    def write(self, stage: str, step: int, cells: int, metrics: dict[str, float]) -> None:
        """Record metrics."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "step": step, "cells": cells, **metrics}) + "\n")
        if self._wandb is not None:
            self._wandb.log({f"{stage}/{k}": v for k, v in {"cells": cells, **metrics}.items()})

    def close(self) -> None:
        """Finish the wandb run, if any."""
        if self._wandb is not None:
            self._wandb.finish()

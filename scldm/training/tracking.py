"""Where training metrics go: always a JSON-lines file, and Weights & Biases when asked."""

from __future__ import annotations

import contextlib
import json
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scldm.errors import UserError
from scldm.files import write_text
from scldm.training.config import TrackingConfig

__all__ = ["MetricsLog", "check_tracking"]


def check_tracking(tracking: TrackingConfig) -> None:
    """Raise ``UserError`` if metrics could not be sent where they are to go; ask before work that takes long."""
    if not tracking.wandb:
        return
    try:
        import wandb  # noqa: F401 - it is asked for here, and used later
    except ImportError:
        raise UserError("tracking.wandb is on but wandb is not installed; run 'pip install wandb'.") from None
    if os.environ.get("WANDB_MODE", "online").lower() in ("offline", "disabled", "dryrun"):
        return
    if not _is_logged_in():
        raise UserError(
            "tracking.wandb is on but nobody is logged in to wandb: run 'wandb login' once, set WANDB_API_KEY, or set "
            "WANDB_MODE=offline."
        )


def _is_logged_in() -> bool:
    """Whether wandb would find a key; its own way to tell asks at the terminal, and remembers the environment."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for place in map(os.path.expanduser, places):
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(place).authenticators(host):
                return True
    return False


class MetricsLog:
    """The record of a run, a file to which metrics are appended, one JSON object per line.

    Every line has ``stage``, ``step`` and ``cells`` (cells trained on so far) and the metrics of that moment.

    Parameters
    ----------
    path
        The ``metrics.jsonl`` to append to; None on processes that do not write.
    tracking
        Whether wandb gets the metrics, too, and under which names.
    configuration
        What wandb records about the run, as plain values.
    """

    def __init__(
        self,
        path: Path | None,
        tracking: TrackingConfig | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self._wandb: Any = None
        tracking = tracking or TrackingConfig()
        if path is None or not tracking.wandb:
            return
        check_tracking(tracking)
        import wandb

        # One wandb run per training run: resuming continues it under the same id. Its files go where wandb puts them
        # (./wandb, or WANDB_DIR): the working directory is removed at the end, and an offline run is uploaded later.
        identifier = path.with_name("wandb_run_id.txt")
        known = identifier.read_text(encoding="utf-8") if identifier.exists() else None
        try:
            self._wandb = wandb.init(
                project=tracking.project, name=tracking.name, id=known, resume="allow", config=dict(configuration or {})
            )
        except Exception as error:  # whatever it raises: no network, another account, a server that says no
            raise UserError(f"wandb cannot track this run: {error}; WANDB_MODE=offline needs no connection.") from error
        write_text(identifier, self._wandb.id)

    def rewind(self, stage: str, step: int) -> None:
        """Forget what a killed run wrote about ``stage`` after the checkpoint at ``step``, which is trained again."""
        if self.path is None or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                entry = json.loads(line)
                is_kept = entry["stage"] != stage or entry["step"] <= step
            except (ValueError, KeyError, TypeError):
                continue  # A line cut off by the kill.
            if is_kept:
                kept.append(line)
        write_text(self.path, "".join(kept))

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

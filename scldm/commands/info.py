"""``scldm info``: what a model is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

__all__ = ["Info"]


@dataclass(frozen=True, kw_only=True)
class Info:
    """Tell what a model was trained on and what it can be asked for."""

    model_dir: Annotated[Positional[Path], arg(metavar="MODEL_DIR")]
    """Model directory."""

    def run(self) -> None:
        """Print the model card."""
        from scldm.storage.card import model_card
        from scldm.storage.directory import read_model

        print(model_card(read_model(self.model_dir)))

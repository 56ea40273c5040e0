"""Checkpoints from which a killed stage resumes exactly: safetensors and JSON, written beside and renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["Checkpoint", "atomic_directory", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State of a stage after a step of its optimiser.

    Attributes
    ----------
    tensors
        Every tensor of the state by group: ``model``, ``ema``, ``best``, ``optimizer``.
    progress
        Everything else, as JSON: steps, best validation loss and so on.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    progress: Mapping[str, Any]


def save_checkpoint(checkpoint: Checkpoint, directory: Path) -> None:
    """Replace the checkpoint in ``directory``; a kill at any moment leaves the old one or the new one, whole."""
    directory.mkdir(parents=True, exist_ok=True)
    step = checkpoint.progress["step"]
    flat = {
        f"{group}/{name}": tensor.detach().contiguous()
        for group, tensors in checkpoint.tensors.items()
        for name, tensor in tensors.items()
    }
    tensor_file = directory / f"step-{step:09d}.safetensors"
    partial = tensor_file.with_suffix(".partial")
    save_file(flat, partial)
    _flush(partial)
    os.replace(partial, tensor_file)
    # The JSON names its tensor file, so the pair changes in the instant of the second rename.
    pointer = directory / "checkpoint.json"
    partial = pointer.with_suffix(".partial")
    partial.write_text(json.dumps({"tensors": tensor_file.name, "progress": dict(checkpoint.progress)}))
    _flush(partial)
    os.replace(partial, pointer)
    for old in directory.glob("step-*"):
        if old != tensor_file:
            old.unlink()


def load_checkpoint(directory: Path, device: torch.device | str = "cpu") -> Checkpoint | None:
    """Read the checkpoint in ``directory``; None if there is none."""
    pointer = directory / "checkpoint.json"
    if not pointer.is_file():
        return None
    content = json.loads(pointer.read_text())
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(directory / content["tensors"], device=str(device)).items():
        group, name = key.split("/", 1)
        tensors.setdefault(group, {})[name] = tensor
    return Checkpoint(tensors, content["progress"])


class atomic_directory:  # noqa: N801 - reads as a statement: with atomic_directory(path) as partial
    """Context in which a directory is filled beside its destination and renamed when the block ends without an error.

    Parameters
    ----------
    destination
        The directory that appears, whole or not at all.
    overwrite
        Replace an existing directory; otherwise it is an error that the caller has to have ruled out.
    """

    def __init__(self, destination: Path, overwrite: bool = False) -> None:
        self.destination = destination
        self.overwrite = overwrite
        self.partial = destination.with_name(f".{destination.name}.partial-{os.getpid()}")

    def __enter__(self) -> Path:
        self.partial.mkdir(parents=True)
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        if self.destination.exists():
            if not self.overwrite:
                shutil.rmtree(self.partial)
                raise FileExistsError(str(self.destination))
            retired = self.destination.with_name(f".{self.destination.name}.retired-{os.getpid()}")
            os.replace(self.destination, retired)
            os.replace(self.partial, self.destination)
            shutil.rmtree(retired)
        else:
            os.replace(self.partial, self.destination)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

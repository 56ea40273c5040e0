"""The model directory: all that is needed to generate, as JSON and safetensors, and nothing that could run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scldm.config import RunConfig
from scldm.data.schema import DatasetSchema
from scldm.errors import UserError
from scldm.files import atomic_directory, check_directory_can_be_made, holds_only
from scldm.nn.weights import check_weights, copy_weights, save_tensors
from scldm.prior.dit import DiT
from scldm.prior.few_step.stored import collect_few_step
from scldm.prior.latents import LatentStatistics
from scldm.prior.state import packed_size
from scldm.seals import read_sealed, write_sealed
from scldm.seeds import seeded_modules
from scldm.storage.card import model_card
from scldm.storage.migrations import FORMAT_VERSION, OLDEST_FORMAT, Content, migrated
from scldm.trained import TrainedModel, TrainingSummary, build_prior, build_vae
from scldm.vae.model import VAE
from scldm.version import __version__

__all__ = ["FILES", "check_model_directory_can_be_made", "is_model", "read_model", "write_model"]

FILES = ("config.json", "schema.json", "vae.safetensors", "prior.safetensors")
#: Checksums of what generates: the model card and the metrics may be edited.
SEAL = "checksums.json"
#: Bytes of a JSON: a schema of a million genes has less.
LARGEST_TEXT = 2**28
FIRST_SEALED_FORMAT = 6
_ALL_FILES = frozenset({*FILES, SEAL, "metrics.jsonl", "model_card.md"})


def check_model_directory_can_be_made(directory: Path, overwrite: bool) -> None:
    """Raise ``UserError`` if something is in the way of a model directory; ask before work that takes long."""
    check_directory_can_be_made(directory, overwrite, what="a model", is_ours=is_model)


def is_model(directory: Path) -> bool:
    """Whether a directory is a model and nothing else, so that it may be replaced by another."""
    # Many tools write a config.json; only a directory with all files of a model is taken for one.
    return all((directory / name).is_file() for name in FILES) and holds_only(_ALL_FILES)(directory)


def write_model(directory: Path, model: TrainedModel, overwrite: bool = False) -> None:
    """Write a model directory; it appears whole or not at all.

    Raises
    ------
    UserError
        If the directory exists and ``overwrite`` is not set, or is something else than a model.
    """
    check_model_directory_can_be_made(directory, overwrite)
    tensors = model.tensors()
    with atomic_directory(directory, overwrite, is_ours=is_model) as partial:
        config = {
            "format_version": FORMAT_VERSION,
            "scldm_version": __version__,
            "config": model.config.to_dict(),
            "training": asdict(model.summary),
        }
        (partial / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (partial / "schema.json").write_text(json.dumps(model.schema.to_dict(), indent=1) + "\n", encoding="utf-8")
        save_tensors(tensors["vae"], partial / "vae.safetensors")
        save_tensors(tensors["prior"], partial / "prior.safetensors")
        write_sealed(partial / SEAL, {"format_version": FORMAT_VERSION}, [partial / name for name in FILES])
        (partial / "metrics.jsonl").write_text(model.metrics, encoding="utf-8")
        (partial / "model_card.md").write_text(model_card(model), encoding="utf-8")


def read_model(directory: Path, device: str | torch.device = "cpu") -> TrainedModel:
    """Read a model directory of any format from `OLDEST_FORMAT` on.

    Parameters
    ----------
    directory
        Written by :func:`write_model`.
    device
        Where to put the networks.

    Raises
    ------
    UserError
        If a file is missing or damaged, or the format is newer than this version of scldm.
    """
    if directory.is_file():
        raise UserError(f"'{directory}' is a file, not a model directory.")
    if not directory.is_dir():
        raise UserError(f"there is no model directory '{directory}'.")
    for name in FILES:
        if not (directory / name).is_file():
            raise UserError(f"'{directory}' is not a model directory: {name} is missing.")
    content = _read_content(directory)
    config, summary = _read_config(directory / "config.json", content.config)
    schema = _read_schema(directory / "schema.json", content.schema)
    if config.vae.dispersion_by not in (None, *schema.categorical_names):
        raise UserError(f"'{directory}' is damaged: config.json and schema.json are not of the same model.")
    metrics = directory / "metrics.jsonl"
    text = _text(metrics) if metrics.is_file() else ""
    return _assemble(directory, config, schema, summary, content, text).to(device)


def _assemble(
    directory: Path,
    config: RunConfig,
    schema: DatasetSchema,
    summary: TrainingSummary,
    content: Content,
    metrics: str,
) -> TrainedModel:
    """Build the networks and put the weights into them; nothing is made that is larger than what the files hold."""
    weights = dict(content.prior)
    state_size = packed_size(config.vae.n_latents * config.vae.latent_channels)
    moments = []
    for name in ("latent_mean", "latent_std"):
        if name not in weights:
            raise UserError(f"'{directory}' is damaged: prior.safetensors has no latent statistics ({name}).")
        moments.append(weights.pop(name))
        if moments[-1].shape != (state_size - 1,):
            raise UserError(
                f"'{directory}' is damaged: {name} in prior.safetensors has shape {tuple(moments[-1].shape)}, the "
                f"configuration asks for {(state_size - 1,)}."
            )
    try:
        few_step = collect_few_step(weights, state_size)
    except ValueError as error:
        raise UserError(f"'{directory}' is damaged: {error} in prior.safetensors.") from error
    stages: tuple[tuple[str, Callable[..., torch.nn.Module], int, dict[str, Tensor]], ...] = (
        ("vae", build_vae, config.vae.n_layers, content.vae),
        ("prior", build_prior, config.prior.n_layers, weights),
    )
    networks = {}
    for name, build, n_layers, tensors in stages:
        where = f"'{directory / name}.safetensors'"
        if n_layers > len(tensors):
            raise UserError(
                f"the configuration asks for {n_layers} layers, and {where} has not even a weight for each."
            )
        try:
            with torch.device("meta"):
                outline = build(config, schema)
        except (RuntimeError, TypeError, OverflowError) as error:
            raise UserError(f"'{directory}' is damaged: config.json asks for impossible sizes.") from error
        check_weights(outline, tensors, where)
        with seeded_modules(0, name):  # its first weights are drawn from the caller's numbers, and are of no use
            networks[name] = build(config, schema)
        copy_weights(networks[name], tensors)
    vae, prior = networks["vae"], networks["prior"]
    return TrainedModel(
        config=config,
        schema=schema,
        vae=cast(VAE, vae),
        prior=cast(DiT, prior),
        statistics=LatentStatistics(*moments),
        summary=summary,
        few_step=few_step,
        metrics=metrics,
    )


def _read_content(directory: Path) -> Content:
    path = directory / "config.json"
    content = _json(path)
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise UserError(f"'{path}' is not of a scldm model, or damaged: it has no format_version.")
    if version > FORMAT_VERSION:
        raise UserError(
            f"'{directory}' has format version {version}, this scldm reads up to {FORMAT_VERSION}; update scldm."
        )
    if version >= FIRST_SEALED_FORMAT:
        read_sealed(directory / SEAL)
    if version < OLDEST_FORMAT:
        raise UserError(
            f"'{directory}' has format version {version}, of an earlier autoencoder; this scldm reads formats from "
            f"{OLDEST_FORMAT} on: train the model again."
        )
    for entry in ("config", "training"):
        if entry not in content:
            raise UserError(f"'{path}' is damaged: it has no entry '{entry}'.")
        if not isinstance(content[entry], dict):
            raise UserError(f"'{path}' is damaged: its entry '{entry}' is no mapping.")
    return migrated(
        Content(
            config=content,
            schema=_json(directory / "schema.json"),
            vae=_weights(directory / "vae.safetensors"),
            prior=_weights(directory / "prior.safetensors"),
        ),
        version,
    )


def _read_config(path: Path, content: dict[str, Any]) -> tuple[RunConfig, TrainingSummary]:
    try:
        return RunConfig.from_dict(content["config"]), TrainingSummary(**content["training"])
    except (ValueError, TypeError) as error:
        raise UserError(f"'{path}' is damaged: {error}") from error


def _read_schema(path: Path, content: Any) -> DatasetSchema:
    try:
        return DatasetSchema.from_dict(content)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"'{path}' is damaged, it is not valid JSON: {error}.") from error


def _text(path: Path) -> str:
    if not path.is_file():  # a pipe would never end
        raise UserError(f"'{path}' is damaged: it is not a regular file.")
    if path.stat().st_size > LARGEST_TEXT:
        raise UserError(f"'{path}' is damaged: it has {path.stat().st_size / 1e9:.1f} GB.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is damaged, it is not text: {error}.") from error


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"'{path}' is damaged: {error}.") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise UserError(f"'{path}' is damaged: its weight '{name}' holds values that are not finite numbers.")
    return tensors

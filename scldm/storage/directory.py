"""The model directory: all that is needed to generate, as JSON and safetensors, and nothing that could run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scldm.config import RunConfig
from scldm.data.schema import DatasetSchema
from scldm.errors import UserError
from scldm.files import atomic_directory, check_directory_can_be_made
from scldm.nn.weights import load_network
from scldm.prior.few_step.stored import collect_few_step
from scldm.prior.latents import LatentStatistics
from scldm.storage.card import model_card
from scldm.storage.migrations import FORMAT_VERSION, OLDEST_FORMAT, Content, migrated
from scldm.trained import TrainedModel, TrainingSummary, build_prior, build_vae
from scldm.version import __version__

__all__ = ["FILES", "check_model_directory_can_be_made", "read_model", "write_model"]

FILES = ("config.json", "schema.json", "vae.safetensors", "prior.safetensors")


def check_model_directory_can_be_made(directory: Path, overwrite: bool) -> None:
    """Raise ``UserError`` if something is in the way of a model directory; ask before work that takes long."""
    check_directory_can_be_made(directory, overwrite, what="a model", is_ours=_is_model)


def _is_model(directory: Path) -> bool:
    # Many tools write a config.json; only a directory with all files of a model is taken for one.
    return all((directory / name).is_file() for name in FILES)


def write_model(directory: Path, model: TrainedModel, overwrite: bool = False) -> None:
    """Write a model directory; it appears whole or not at all.

    Raises
    ------
    UserError
        If the directory exists and ``overwrite`` is not set, or is something else than a model.
    """
    check_model_directory_can_be_made(directory, overwrite)
    tensors = model.tensors()
    with atomic_directory(directory, overwrite) as partial:
        config = {
            "format_version": FORMAT_VERSION,
            "scldm_version": __version__,
            "config": model.config.to_dict(),
            "training": asdict(model.summary),
        }
        (partial / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (partial / "schema.json").write_text(json.dumps(model.schema.to_dict(), indent=1) + "\n", encoding="utf-8")
        save_file(tensors["vae"], partial / "vae.safetensors")
        save_file(tensors["prior"], partial / "prior.safetensors")
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
    """Build the networks and put the weights into them."""
    vae, prior, weights = build_vae(config, schema), build_prior(config, schema), dict(content.prior)
    moments = []
    for name in ("latent_mean", "latent_std"):
        if name not in weights:
            raise UserError(f"'{directory}' is damaged: prior.safetensors has no latent statistics ({name}).")
        moments.append(weights.pop(name))
        if moments[-1].shape != (prior.latent_size,):
            raise UserError(
                f"'{directory}' is damaged: {name} in prior.safetensors has shape {tuple(moments[-1].shape)}, the "
                f"configuration asks for {(prior.latent_size,)}."
            )
    try:
        few_step = collect_few_step(weights, prior.state_size)
    except ValueError as error:
        raise UserError(f"'{directory}' is damaged: {error} in prior.safetensors.") from error
    load_network(vae, content.vae, f"'{directory}/vae.safetensors'")
    load_network(prior, weights, f"'{directory}/prior.safetensors'")
    return TrainedModel(
        config=config,
        schema=schema,
        vae=vae,
        prior=prior,
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
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is damaged, it is not text: {error}.") from error


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"'{path}' is damaged: {error}.") from error

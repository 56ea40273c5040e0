"""The model directory: all that is needed to generate, as JSON and safetensors, and nothing that could run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import scldm
from scldm.config import RunConfig
from scldm.data.schema import CategoricalAttribute, DatasetSchema
from scldm.errors import UserError
from scldm.files import atomic_directory

__all__ = [
    "FORMAT_VERSION",
    "StoredModel",
    "TrainingSummary",
    "check_absent",
    "model_hash",
    "read_model",
    "write_model",
]

FORMAT_VERSION = 4
FILES = ("config.json", "schema.json", "vae.safetensors", "prior.safetensors")


@dataclass(frozen=True)
class TrainingSummary:
    """How a model was trained.

    Attributes
    ----------
    n_training_cells, n_validation_cells
        Cells of the split.
    processes, device
        Where it ran.
    vae, prior
        How each stage ended: ``cells`` trained on, ``best_loss``, ``stopped_early``.
    """

    n_training_cells: int
    n_validation_cells: int
    processes: int
    device: str
    vae: Mapping[str, Any]
    prior: Mapping[str, Any]

    def __post_init__(self) -> None:
        for stage in (self.vae, self.prior):
            if not isinstance(stage, Mapping) or not {"cells", "best_loss", "stopped_early"} <= stage.keys():
                raise ValueError("the summary of the training lacks cells, best_loss or stopped_early")


@dataclass(frozen=True, eq=False)
class StoredModel:
    """The content of a model directory.

    Attributes
    ----------
    config, schema, summary
        What the model is, what it knows of its data, how it was trained.
    vae_weights, prior_weights
        By parameter name; the prior's are the averaged (EMA) ones. ``prior_weights`` also holds the standardisation of
        the latents as ``latent_mean`` and ``latent_std``, and the few-step solvers as ``few_step.*``.
    metrics
        Lines of ``metrics.jsonl``.
    """

    config: RunConfig
    schema: DatasetSchema
    summary: TrainingSummary
    vae_weights: Mapping[str, Tensor]
    prior_weights: Mapping[str, Tensor]
    metrics: str


def check_absent(directory: Path, overwrite: bool) -> None:
    """Raise ``UserError`` if something is in the way of a model directory; ask before work that takes long."""
    if directory.is_file():
        raise UserError(f"'{directory}' is a file; name a directory for the model.")
    # Many tools write a config.json; only a directory with all files of a model is taken for one.
    if directory.exists() and any(directory.iterdir()) and not all((directory / name).is_file() for name in FILES):
        raise UserError(f"'{directory}' exists, is not a model directory and will not be overwritten; name another.")
    if directory.exists() and not overwrite:
        raise UserError(f"'{directory}' exists already; pass --overwrite (in Python: overwrite=True) to replace it.")
    parent = next(p for p in directory.absolute().parents if p.exists())
    if not parent.is_dir():
        raise UserError(f"'{directory}' cannot be made: '{parent}' is a file.")
    if not os.access(parent, os.W_OK):
        raise UserError(f"'{directory}' cannot be made: no permission to write in '{parent}'.")


def write_model(directory: Path, model: StoredModel, overwrite: bool = False) -> None:
    """Write a model directory; it appears whole or not at all.

    Raises
    ------
    UserError
        If the directory exists and ``overwrite`` is not set, or is something else than a model.
    """
    check_absent(directory, overwrite)
    with atomic_directory(directory, overwrite) as partial:
        config = {
            "format_version": FORMAT_VERSION,
            "scldm_version": scldm.__version__,
            "config": model.config.to_dict(),
            "training": asdict(model.summary),
        }
        (partial / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        model.schema.save(partial / "schema.json")
        save_file(dict(model.vae_weights), partial / "vae.safetensors")
        save_file(dict(model.prior_weights), partial / "prior.safetensors")
        (partial / "metrics.jsonl").write_text(model.metrics)
        (partial / "model_card.md").write_text(model_card(model))


def read_model(directory: Path) -> StoredModel:
    """Read a model directory.

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
    config, summary = _read_config(directory)
    schema = DatasetSchema.load(directory / "schema.json")
    if config.vae.dispersion_by not in (None, *schema.categorical_names):
        raise UserError(f"'{directory}' is damaged: config.json and schema.json are not of the same model.")
    metrics = directory / "metrics.jsonl"
    return StoredModel(
        config=config,
        schema=schema,
        summary=summary,
        vae_weights=_weights(directory / "vae.safetensors"),
        prior_weights=_weights(directory / "prior.safetensors"),
        metrics=metrics.read_text() if metrics.is_file() else "",
    )


def _read_config(directory: Path) -> tuple[RunConfig, TrainingSummary]:
    path = directory / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{path}' is damaged, it is not valid JSON: {error}.") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise UserError(f"'{path}' is not of a scldm model, or damaged: it has no format_version.")
    if version > FORMAT_VERSION:
        raise UserError(
            f"'{directory}' has format version {version}, this scldm reads up to {FORMAT_VERSION}; update scldm."
        )
    if version < FORMAT_VERSION:
        raise UserError(
            f"'{directory}' has format version {version}, of an earlier autoencoder; this scldm reads {FORMAT_VERSION} "
            "only: train the model again."
        )
    try:
        return RunConfig.from_dict(content["config"]), TrainingSummary(**content["training"])
    except KeyError as error:
        raise UserError(f"'{path}' is damaged: it has no entry {error}.") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"'{path}' is damaged: {error}") from error


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise UserError(f"'{path}' is damaged: {error}.") from error


def model_hash(model: StoredModel) -> str:
    """Fingerprint of everything that decides which cells a model generates, 16 hexadecimal digits."""
    config = model.config.to_dict()
    # Two networks with the same weights can be different functions: the number of heads has no weight.
    known = [model.schema.to_dict(), config["vae"], config["prior"]]
    digest = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=8)
    for weights in (model.vae_weights, model.prior_weights):
        for name in sorted(weights):
            digest.update(name.encode())
            digest.update(weights[name].detach().to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


def model_card(model: StoredModel) -> str:
    """Describe the model for people: what it learnt from, what it can be asked for, how it was trained."""
    schema, config, summary = model.schema, model.config, model.summary
    depth = schema.depth
    attributes = [f"| {a.name} | categorical | {_categories(a)} |" for a in schema.categorical]
    attributes += [
        f"| {a.name} | continuous | {a.minimum:g} to {a.maximum:g}, mean {a.mean:g} |" for a in schema.continuous
    ]
    n_vae = sum(t.numel() for t in model.vae_weights.values())
    others = ("latent_", "few_step.")
    n_prior = sum(t.numel() for name, t in model.prior_weights.items() if not name.startswith(others))
    evaluations = sorted({name.split(".")[1] for name in model.prior_weights if name.startswith("few_step.")}, key=int)
    prior_size = f"width {config.prior.width}, {config.prior.n_layers} layers"
    table = "| attribute | kind | values (training cells) |\n|---|---|---|\n" + "\n".join(attributes)
    return f"""# scldm model

A latent diffusion model of single-cell counts, made by scldm {scldm.__version__}. Load it with `scldm.ScLDM.load(...)`
or `scldm sample`. The files are JSON and safetensors; opening them runs no code.

## Data
{schema.n_cells:,} cells ({summary.n_training_cells:,} trained on, {summary.n_validation_cells:,} for validation),
{schema.n_genes:,} genes, library size {depth.minimum:,.0f} to {depth.maximum:,.0f} UMI (median {depth.median:,.0f}).
Source: `{config.data.path or "an AnnData in memory"}`.

## Attributes
{table if attributes else "None: the model generates unconditionally."}

## Model
{n_vae:,} parameters in the autoencoder ({config.vae.layout} layout,
{config.vae.n_latents} x {config.vae.latent_channels} latents), {n_prior:,} in the prior ({prior_size}).
Network evaluations of the few-step solvers that were fitted: {", ".join(evaluations) or "none fitted"}.

## Training
| stage | cells seen | validation loss | stopped early |
|---|---|---|---|
| vae | {summary.vae["cells"]:,} | {summary.vae["best_loss"]:.4g} | {summary.vae["stopped_early"]} |
| prior | {summary.prior["cells"]:,} | {summary.prior["best_loss"]:.4g} | {summary.prior["stopped_early"]} |

## Limits
Cells are drawn from a model of the training cells: compare them with held-out cells (`scldm evaluate`) before use,
and do not take them for anonymised data without checking how near they are to single training cells. Combinations of
attributes that no training cell had are extrapolations.
"""


def _categories(attribute: CategoricalAttribute, most: int = 30) -> str:
    labels = [f"{c} ({n})" for c, n in zip(attribute.categories, attribute.counts, strict=True)]
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more

"""The model card: a model described for people."""

from __future__ import annotations

import html
import re

from scldm.data.schema import CategoricalAttribute
from scldm.errors import printable
from scldm.trained import TrainedModel
from scldm.version import __version__

__all__ = ["model_card"]

MOST_CATEGORIES = 30


def model_card(model: TrainedModel) -> str:
    """Tell what a model learnt from, what it can be asked for, and how it was trained."""
    schema, config, summary = model.schema, model.config, model.summary
    depth = schema.depth
    attributes = [f"| {_text(a.name)} | categorical | {_categories(a)} |" for a in schema.categorical]
    attributes += [
        f"| {_text(a.name)} | continuous | {a.minimum:g} to {a.maximum:g}, mean {a.mean:g} |" for a in schema.continuous
    ]
    n_vae, n_prior = (sum(p.numel() for p in network.parameters()) for network in (model.vae, model.prior))
    evaluations = sorted({evaluations for evaluations, _ in model.few_step})
    prior_size = f"width {config.prior.width}, {config.prior.n_layers} layers"
    table = "| attribute | kind | values (training cells) |\n|---|---|---|\n" + "\n".join(attributes)
    return f"""# scldm model

A latent diffusion model of single-cell counts, made by scldm {__version__}. Load it with `scldm.ScLDM.load(...)`
or `scldm sample`. The files are JSON and safetensors; opening them runs no code.

## Data
{schema.n_cells:,} cells ({summary.n_training_cells:,} trained on, {summary.n_validation_cells:,} for validation),
{schema.n_genes:,} genes, library size {depth.minimum:,.0f} to {depth.maximum:,.0f} UMI (median {depth.median:,.0f}).
Source: {_text(config.data.path or "an AnnData in memory")}.

## Attributes
{table if attributes else "None: the model generates unconditionally."}

## Model
{n_vae:,} parameters in the autoencoder ({config.vae.layout} layout,
{config.vae.n_latents} x {config.vae.latent_channels} latents), {n_prior:,} in the prior ({prior_size}).
Network evaluations of the few-step solvers that were fitted: {", ".join(map(str, evaluations)) or "none fitted"}.

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


def _text(name: str) -> str:
    """Write a name so that it means nothing in Markdown or HTML."""
    return re.sub(r"([\\`*{}\[\]()#+!|~$])", r"\\\1", html.escape(printable(name), quote=False))


def _categories(attribute: CategoricalAttribute) -> str:
    labels = [f"{_text(c)} ({n})" for c, n in zip(attribute.categories, attribute.counts, strict=True)]
    more = f" and {len(labels) - MOST_CATEGORIES} more" if len(labels) > MOST_CATEGORIES else ""
    return ", ".join(labels[:MOST_CATEGORIES]) + more

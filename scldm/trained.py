"""A trained model: the one type that storage, generation and every task take."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from scldm.config import RunConfig
from scldm.data.schema import DatasetSchema
from scldm.nn.weights import network_tensors
from scldm.prior.dit import DiT
from scldm.prior.few_step.solver import FewStepSolvers
from scldm.prior.few_step.stored import few_step_tensors
from scldm.prior.latents import LatentStatistics
from scldm.vae.model import VAE

__all__ = ["TrainedModel", "TrainingSummary", "build_prior", "build_vae", "dispersion_attribute", "parameter_counts"]


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
        numbers: list[Any] = [self.n_training_cells, self.n_validation_cells]
        for stage in (self.vae, self.prior):
            if not isinstance(stage, Mapping) or not {"cells", "best_loss", "stopped_early"} <= stage.keys():
                raise ValueError("the summary of the training lacks cells, best_loss or stopped_early")
            numbers += [stage["cells"], stage["best_loss"]]
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("the summary of the training holds something else than numbers of cells and losses")


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Networks with their averaged weights, and all that is needed to use them.

    Attributes
    ----------
    config, schema
        What the model is, and what it knows of its data.
    vae, prior
        In evaluation mode, without gradients, on one device.
    statistics
        Standardisation of the latents, on the same device.
    summary
        How the model was trained.
    few_step
        Solvers that were fitted to the prior.
    metrics
        Lines of ``metrics.jsonl``.
    """

    config: RunConfig
    schema: DatasetSchema
    vae: VAE
    prior: DiT
    statistics: LatentStatistics
    summary: TrainingSummary
    few_step: FewStepSolvers = field(default_factory=dict)
    metrics: str = ""

    def __post_init__(self) -> None:
        for network in (self.vae, self.prior):
            network.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.statistics.mean.device

    def to(self, device: torch.device | str) -> TrainedModel:
        """Return the model with copies of the networks on another device; on the same device, itself."""
        if torch.device(device) == self.device:
            return self
        return dataclasses.replace(
            self,
            vae=copy.deepcopy(self.vae).to(device),
            prior=copy.deepcopy(self.prior).to(device),
            statistics=LatentStatistics(self.statistics.mean.to(device), self.statistics.std.to(device)),
            few_step={key: solver.to(device) for key, solver in self.few_step.items()},
        )

    @property
    def dispersion_attribute(self) -> int | None:
        """Position, among the categorical attributes, of the one that dispersion depends on; None if on none."""
        return dispersion_attribute(self.config, self.schema)

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """Every tensor of the model on the CPU, by name, for ``vae`` and ``prior``.

        Those of the prior include the standardisation of the latents (``latent_mean``, ``latent_std``) and the few-step
        solvers (``few_step.*``).
        """
        others = {"latent_mean": self.statistics.mean.cpu(), "latent_std": self.statistics.std.cpu()}
        others |= few_step_tensors(self.few_step)
        return {"vae": network_tensors(self.vae), "prior": network_tensors(self.prior) | others}

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that stand for everything that decides which cells a model generates."""
        config = self.config.to_dict()
        # Two networks with the same weights can be different functions: the number of heads has no weight.
        known = [self.schema.to_dict(), config["vae"], config["prior"]]
        if not config["vae"]["thinning"]:  # as in models before it could be set, whose fingerprints are in many files
            del config["vae"]["thinning"]
        for section in known[1:]:
            if not section["joint_attribute_dropout"]:  # as in models of format 5, whose fingerprints are in many files
                del section["joint_attribute_dropout"]
        if self.config.seeding != "32-bit":  # what models of format 4 had, whose fingerprints are in many files
            known.append(self.config.seeding)
        digest = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=8)
        for tensors in self.tensors().values():
            for name in sorted(tensors):
                digest.update(name.encode())
                digest.update(tensors[name].detach().to(torch.float32).numpy().tobytes())
        return digest.hexdigest()


def dispersion_attribute(config: RunConfig, schema: DatasetSchema) -> int | None:
    """Find the position, among the categorical attributes, of the one that dispersion depends on; None if on none."""
    name = config.vae.dispersion_by
    return None if name is None else schema.categorical_names.index(name)


def build_vae(config: RunConfig, schema: DatasetSchema, gene_totals: Float[np.ndarray, " genes"] | None = None) -> VAE:
    """Build the autoencoder.

    Parameters
    ----------
    config, schema
        Of the model.
    gene_totals
        UMI counts of every gene over the training cells, where the rates start; None for one whose weights are loaded.
    """
    k = dispersion_attribute(config, schema)
    return VAE(
        config.vae,
        schema.n_genes,
        0 if k is None else schema.n_categories[k],
        gene_totals,
        schema.n_categories,
        len(schema.continuous),
    )


def build_prior(config: RunConfig, schema: DatasetSchema) -> DiT:
    """Build the diffusion transformer."""
    return DiT(
        config.vae.n_latents,
        config.vae.latent_channels,
        config.prior.width,
        config.prior.n_layers,
        config.prior.n_heads,
        schema.n_categories,
        len(schema.continuous),
        time_scale=config.prior.time_scale,
        dropout=config.prior.dropout,
    )


def parameter_counts(config: RunConfig, schema: DatasetSchema) -> dict[str, int]:
    """Count the weights of each stage, ``vae`` and ``prior``, without making them."""
    with torch.device("meta"):
        networks = {"vae": build_vae(config, schema), "prior": build_prior(config, schema)}
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}

"""ScLDM, the one object a user holds: train, sample, encode, save, load."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from jaxtyping import Float32

import scldm
from scldm.config import DataConfig, RunConfig
from scldm.data.opening import open_source
from scldm.data.schema import DatasetSchema
from scldm.data.source import CellSource
from scldm.errors import UserError
from scldm.generation.request import CHUNK_CELLS, Conditions, GenerationRequest
from scldm.generation.sampler import Sampler
from scldm.generation.writer import CellsHeader, collect_cells, write_cells
from scldm.model_directory import StoredModel, TrainingSummary, model_hash, read_model, write_model
from scldm.networks import build_prior, build_vae, dispersion_attribute, parameter_counts
from scldm.nn.weights import load_network, network_tensors
from scldm.prior.dit import DiT
from scldm.prior.few_step.solver import FewStepSolvers
from scldm.prior.few_step.stored import collect_few_step, few_step_tensors
from scldm.prior.guidance import Guidance
from scldm.prior.latents import LatentStatistics
from scldm.training.distributed import make_accelerator
from scldm.training.run import ENCODE_BATCH, encoded_blocks, split_source, train_networks
from scldm.training.tracking import MetricsLog
from scldm.training.workspace import open_workspace
from scldm.vae.model import VAE

__all__ = ["ScLDM"]


class ScLDM:
    """Latent diffusion model of single-cell counts.

    Parameters
    ----------
    adata
        Cells with UMI counts: an AnnData, the path of an ``.h5ad``, or ``"demo"`` for the embedded data.
    conditions
        Categorical obs columns to condition on.
    continuous
        Continuous obs columns to condition on.
    layer
        Layer that holds the counts; None reads ``X``.
    config
        Everything else; its ``data`` section is completed by the arguments above.

    Raises
    ------
    UserError
        If the data are not counts, a column is missing or unusable, or the configuration is impossible.

    Examples
    --------
    >>> model = ScLDM("demo", conditions=["cell_type"])  # doctest: +SKIP
    >>> model.train()  # doctest: +SKIP
    >>> cells = model.sample(100, conditions={"cell_type": "CD19+ B"}, guidance=2.0)  # doctest: +SKIP
    """

    def __init__(
        self,
        adata: ad.AnnData | str | os.PathLike[str],
        conditions: Sequence[str] = (),
        *,
        continuous: Sequence[str] = (),
        layer: str | None = None,
        config: RunConfig | None = None,
    ) -> None:
        config = config or RunConfig()
        path = None if isinstance(adata, ad.AnnData) else str(adata)
        data = DataConfig(
            **{
                **vars(config.data),
                "path": path,
                "layer": layer if layer is not None else config.data.layer,
                "conditions": _names(conditions) or config.data.conditions,
                "continuous": _names(continuous) or config.data.continuous,
            }
        )
        self.config = RunConfig(**{**vars(config), "data": data})
        self._source: CellSource | None = open_source(
            adata,
            layer=data.layer,
            categorical=data.conditions,
            continuous=data.continuous,
            min_cells_per_gene=data.min_cells_per_gene,
            missing_labels=data.missing_labels,
            backed=data.backed,
            keep_columns=() if data.group_by is None else (data.group_by,),
        )
        self.schema: DatasetSchema = self._source.schema
        self.training_summary: TrainingSummary | None = None
        self._sampler: Sampler | None = None
        self._metrics = ""

    @classmethod
    def from_config(cls, config: RunConfig) -> ScLDM:
        """Build an untrained model from a configuration whose ``data.path`` names the cells."""
        if config.data.path is None:
            raise UserError(
                "the configuration has no data.path; it must name an .h5ad file, or 'demo' for embedded data."
            )
        return cls(config.data.path, config=config)

    @property
    def is_trained(self) -> bool:
        """Whether cells can be sampled."""
        return self._sampler is not None

    # ---------------------------------------------------------------------------------------------- training

    def train(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        accelerator: Accelerator | None = None,
        on_step: Callable[[str, int], None] | None = None,
    ) -> TrainingSummary:
        """Train both stages.

        Parameters
        ----------
        directory
            Working directory for checkpoints, latents and ``metrics.jsonl``. Calling again with the same directory
            continues a training that was interrupted, exactly. None works in a temporary directory; the counts of a
            backed file are unpacked there, too (``data.unpack``).
        accelerator
            Where to train; None lets accelerate decide from the environment.
        on_step
            Called with the stage's name and the number of steps done after every step.

        Raises
        ------
        UserError
            If the validation split is impossible, the batch cannot be shared by the processes, training diverges, or
            ``directory`` holds something else than an unfinished training of this model on these data.
        """
        if self._source is None:
            raise UserError(
                "this model was loaded from a directory and has no training cells; build ScLDM(adata) to train."
            )
        if directory is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("several processes train together in one directory; call train(directory).")
        if directory is None:
            with tempfile.TemporaryDirectory(prefix="scldm-") as temporary:
                return self.train(temporary, accelerator=accelerator, on_step=on_step)
        accelerator = accelerator or make_accelerator(self.config.precision)
        work = Path(directory)
        open_workspace(work, self.identity(), accelerator)
        log = MetricsLog(
            work / "metrics.jsonl" if accelerator.is_main_process else None, self.config.tracking, self.config.to_dict()
        )
        trained = train_networks(self._source, self.config, work, log, accelerator, on_step)
        log.close()
        self._set_networks(trained.vae, trained.prior, trained.statistics, accelerator.device, trained.few_step)
        self._metrics = (work / "metrics.jsonl").read_text() if accelerator.is_main_process else ""
        self.training_summary = TrainingSummary(
            n_training_cells=trained.n_training_cells,
            n_validation_cells=trained.n_validation_cells,
            processes=accelerator.num_processes,
            device=str(accelerator.device),
            vae=trained.vae_summary,
            prior=trained.prior_summary,
        )
        return self.training_summary

    def identity(self) -> dict[str, Any]:
        """Everything that changes the outcome of a training, as JSON."""
        return {"config": self.config.outcome(), "schema": self.schema.to_dict()}

    def check_split(self) -> None:
        """Raise ``UserError`` if the labels allow no split into training and validation cells, as training would."""
        assert self._source is not None
        split_source(self._source, self.config)

    # ---------------------------------------------------------------------------------------------- generation

    def sample(
        self,
        n_cells: int | None = None,
        *,
        conditions: Conditions | None = None,
        depth: float | int | Sequence[float | int] | np.ndarray | None = None,
        genes: Sequence[str] | None = None,
        guidance: Guidance | float | int | Mapping[str, float | int] = 1.0,
        solver: str = "heun",
        steps: int | None = None,
        seed: int = 0,
        batch_size: int = 512,
    ) -> ad.AnnData:
        """Generate cells.

        Parameters
        ----------
        n_cells, conditions, depth, genes, guidance, solver, steps, seed
            See :meth:`scldm.generation.GenerationRequest.build`.
        batch_size
            Cells generated at a time; it does not change the cells.

        Returns
        -------
        Cells with integer UMI counts as float32 CSR in ``X``, the attributes asked for in ``obs``, the latents in
        ``obsm["X_scldm"]`` and the request in ``uns["scldm"]``.
        """
        request = GenerationRequest.build(
            self.schema, n_cells, conditions=conditions, depth=depth, genes=genes, guidance=guidance,
            solver=solver, steps=steps, seed=seed,
        )  # fmt: skip
        self._trained().check(request)
        return collect_cells(self.header(request), self._trained().blocks(request, batch_size))

    def sample_to_file(
        self,
        path: str | os.PathLike[str],
        request: GenerationRequest,
        *,
        batch_size: int = 512,
        overwrite: bool = False,
        accelerator: Accelerator | None = None,
        on_cells: Callable[[int], Any] | None = None,
    ) -> None:
        """Generate cells straight into an ``.h5ad``, never holding more than a batch.

        Parameters
        ----------
        path
            Destination; appears when it is complete.
        request
            Built by :meth:`scldm.generation.GenerationRequest.build`.
        batch_size
            Cells generated at a time; it does not change the cells.
        overwrite
            Replace an existing file.
        accelerator
            Shares the work with other processes; None works alone.
        on_cells
            Called with the number of new cells after every batch.
        """
        self._trained().check(request)
        rank, world_size = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
        blocks = self._trained().blocks(request, batch_size, rank=rank, world_size=world_size, on_cells=on_cells)
        if rank == 0:
            write_cells(Path(path), self.header(request), blocks, overwrite)
        else:
            for _ in blocks:
                pass

    def header(self, request: GenerationRequest) -> CellsHeader:
        """Everything of a generated file but its counts."""
        genes = self.schema.genes if request.genes is None else tuple(self.schema.genes[i] for i in request.genes)
        guidance, first_cell = request.guidance.to_dict(), request.first_chunk * CHUNK_CELLS
        uns = {
            "version": scldm.__version__,
            "model_hash": self.hash(),
            "conditions": ",".join(request.given),
            "depth": "generated" if request.depth is None else "given",
            "guidance_mode": guidance["mode"],
            "guidance": guidance["scales"],
            "solver": request.solver,
            "steps": request.steps,
            "seed": request.seed,
            "n_cells": request.n_cells,
            "first_cell": first_cell,
        }
        vae = self.config.vae
        obs = request.requested_obs(self.schema)
        obs.index = pd.Index([f"generated_{first_cell + i}" for i in range(request.n_cells)])
        return CellsHeader(obs, genes, vae.n_latents * vae.latent_channels, uns)

    def get_latent_representation(
        self, adata: ad.AnnData | str | os.PathLike[str], *, layer: str | None = None, batch_size: int = ENCODE_BATCH
    ) -> Float32[np.ndarray, "cells state"]:
        """Encode cells into the mean of their latent tokens, flattened: ``[cells, latents * channels]``.

        Genes are aligned by name. Attributes are not needed, and not used where they are there: what two cells with the
        same counts are encoded into is the same.
        """
        return self.encode(self.open_aligned(adata, layer=layer), batch_size)

    def encode(self, source: CellSource, batch_size: int = ENCODE_BATCH) -> Float32[np.ndarray, "cells state"]:
        """Encode cells that :meth:`open_aligned` opened; see :meth:`get_latent_representation`."""
        vae = self._trained().vae
        return np.concatenate([block.mean for block in encoded_blocks(vae, source, batch_size, use_attributes=False)])

    def open_aligned(self, adata: ad.AnnData | str | os.PathLike[str], *, layer: str | None = None) -> CellSource:
        """Read cells in the gene order of this model; see ``source.coverage`` for how many genes they share."""
        return open_source(adata, layer=layer, schema=self.schema, missing_labels="unlabelled")

    # ---------------------------------------------------------------------------------------------- saving

    def save(self, directory: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the model directory: weights, schema, configuration, metrics and model card; whole or not at all."""
        write_model(Path(directory), self._stored(), overwrite=overwrite)

    @classmethod
    def load(cls, directory: str | os.PathLike[str], device: str | torch.device | None = None) -> ScLDM:
        """Open a model directory; only safetensors and JSON are read, so nothing in it can run.

        Parameters
        ----------
        directory
            Written by :meth:`save` or ``scldm train``.
        device
            Where to put the networks; None takes a GPU if there is one.

        Raises
        ------
        UserError
            If it is not a model directory, is damaged, or was written by a newer version.
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        stored = read_model(Path(directory))
        model = cls.__new__(cls)
        model.config, model.schema, model.training_summary = stored.config, stored.schema, stored.summary
        model._source, model._metrics = None, stored.metrics
        vae, prior = build_vae(model.config, model.schema), build_prior(model.config, model.schema)
        prior_weights = dict(stored.prior_weights)
        moments = []
        for name in ("latent_mean", "latent_std"):
            if name not in prior_weights:
                raise UserError(f"'{directory}' is damaged: prior.safetensors has no latent statistics ({name}).")
            moments.append(prior_weights.pop(name))
            if moments[-1].shape != (prior.latent_size,):
                raise UserError(
                    f"'{directory}' is damaged: {name} in prior.safetensors has shape {tuple(moments[-1].shape)}, the "
                    f"configuration asks for {(prior.latent_size,)}."
                )
        try:
            few_step = collect_few_step(prior_weights, prior.state_size)
        except ValueError as error:
            raise UserError(f"'{directory}' is damaged: {error} in prior.safetensors.") from error
        load_network(vae, stored.vae_weights, f"'{directory}/vae.safetensors'")
        load_network(prior, prior_weights, f"'{directory}/prior.safetensors'")
        model._set_networks(vae, prior, LatentStatistics(moments[0], moments[1]), device, few_step)
        return model

    def hash(self) -> str:
        """Fingerprint of weights, architecture and schema, 16 hexadecimal digits, written into generated files."""
        return model_hash(self._stored())

    def _stored(self) -> StoredModel:
        sampler = self._trained()
        assert self.training_summary is not None
        others = {"latent_mean": sampler.statistics.mean.cpu(), "latent_std": sampler.statistics.std.cpu()}
        others |= few_step_tensors(sampler.few_step)
        return StoredModel(
            config=self.config,
            schema=self.schema,
            summary=self.training_summary,
            vae_weights=network_tensors(sampler.vae),
            prior_weights=network_tensors(sampler.prior) | others,
            metrics=self._metrics,
        )

    def parameter_counts(self) -> dict[str, int]:
        """Count the weights of each stage, ``vae`` and ``prior``."""
        return parameter_counts(self.config, self.schema)

    # ---------------------------------------------------------------------------------------------- parts

    def _set_networks(
        self,
        vae: VAE,
        prior: DiT,
        statistics: LatentStatistics,
        device: str | torch.device,
        few_step: FewStepSolvers,
    ) -> None:
        self._sampler = Sampler(
            vae=vae.to(device).eval().requires_grad_(False),
            prior=prior.to(device).eval().requires_grad_(False),
            statistics=LatentStatistics(statistics.mean.to(device), statistics.std.to(device)),
            depth=self.schema.depth,
            attribute_names=self.schema.attribute_names,
            dispersion_attribute=dispersion_attribute(self.config, self.schema),
            few_step={key: solver.to(device) for key, solver in few_step.items()},
            seeding=self.config.seeding,
        )

    def _trained(self) -> Sampler:
        if self._sampler is None:
            raise UserError("this model has not been trained yet; call train() first, or ScLDM.load() a trained one.")
        return self._sampler


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)

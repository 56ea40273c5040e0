"""ScLDM, the one object a user holds: train, sample, encode, save, load."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float32

from scldm.config import DataConfig, RunConfig
from scldm.data.opening import open_source
from scldm.data.schema import DatasetSchema
from scldm.data.source import CellSource
from scldm.errors import UserError, WholeNumber
from scldm.generation.conditions import Conditions
from scldm.generation.header import CellsHeader
from scldm.generation.request import GenerationRequest
from scldm.generation.sampler import check_solver_is_fitted, generate
from scldm.generation.writer import collect_cells, write_cells
from scldm.run import identity, split_source, train_model
from scldm.storage.directory import read_model, write_model
from scldm.tasks.cells import open_aligned
from scldm.tasks.representation import ENCODE_BATCH, encode
from scldm.torch_state import own_torch_defaults
from scldm.trained import TrainedModel, TrainingSummary, parameter_counts
from scldm.training.distributed import make_accelerator, started_processes

__all__ = ["ScLDM"]

#: Of a weight in training: itself, its gradient, two moments and the average, float32 each.
BYTES_PER_WEIGHT = 20


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
        self._trained: TrainedModel | None = None

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
        return self._trained is not None

    @property
    def trained(self) -> TrainedModel:
        """The trained model, which tasks take; raises ``UserError`` before :meth:`train`."""
        if self._trained is None:
            raise UserError("this model has not been trained yet; call train() first, or ScLDM.load() a trained one.")
        return self._trained

    @property
    def training_summary(self) -> TrainingSummary | None:
        """How the model was trained; None before."""
        return None if self._trained is None else self._trained.summary

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
        self.check_size()
        if directory is None and started_processes() > 1:
            raise UserError("several processes train together in one directory; call train(directory).")
        if directory is None:
            with tempfile.TemporaryDirectory(prefix="scldm-") as temporary:
                return self.train(temporary, accelerator=accelerator, on_step=on_step)
        accelerator = accelerator or make_accelerator(self.config.precision)
        self._trained = train_model(self._source, self.config, Path(directory), accelerator, on_step)
        return self._trained.summary

    def identity(self) -> dict[str, Any]:
        """Everything that determines the outcome of a training, as JSON."""
        assert self._source is not None
        return identity(self.config, self._source)

    @own_torch_defaults()
    def check_size(self) -> None:
        """Raise ``UserError`` if the weights, their averages and the optimiser would not fit into memory."""
        needed = BYTES_PER_WEIGHT * max(self.parameter_counts().values())
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf
        if needed > available:
            raise UserError(
                f"training would take about {needed / 1e9:,.0f} GB for weights and optimiser alone, and this machine "
                f"has {available / 1e9:,.0f} GB; make the networks smaller."
            )

    def check_split(self) -> None:
        """Raise ``UserError`` if the labels allow no split into training and validation cells, as training would."""
        assert self._source is not None
        split_source(self._source, self.config)

    # ---------------------------------------------------------------------------------------------- generation

    @own_torch_defaults()
    def sample(
        self,
        n_cells: WholeNumber | None = None,
        *,
        conditions: Conditions | None = None,
        depth: Any = None,
        genes: Sequence[str] | None = None,
        guidance: Any = 1.0,
        solver: str = "heun",
        steps: WholeNumber | None = None,
        seed: WholeNumber = 0,
        exact_depth: bool = False,
        batch_size: int = 512,
    ) -> ad.AnnData:
        """Generate cells.

        Parameters
        ----------
        n_cells, conditions, depth, genes, guidance, solver, steps, seed, exact_depth
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
            solver=solver, steps=steps, seed=seed, exact_depth=exact_depth,
        )  # fmt: skip
        return collect_cells(CellsHeader.of(self.trained, request), generate(self.trained, request, batch_size))

    @own_torch_defaults()
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
        check_solver_is_fitted(self.trained, request)
        rank, world_size = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
        blocks = generate(self.trained, request, batch_size, rank=rank, world_size=world_size, on_cells=on_cells)
        if rank == 0:
            write_cells(Path(path), CellsHeader.of(self.trained, request), blocks, overwrite)
        else:
            for _ in blocks:
                pass

    @own_torch_defaults()
    def get_latent_representation(
        self, adata: ad.AnnData | str | os.PathLike[str], *, layer: str | None = None, batch_size: int = ENCODE_BATCH
    ) -> Float32[np.ndarray, "cells state"]:
        """Encode cells into the mean of their latent tokens, flattened: ``[cells, latents * channels]``.

        Genes are aligned by name. Attributes are not needed, and not used where they are there: what two cells with the
        same counts are encoded into is the same.
        """
        return encode(self.trained, open_aligned(self.trained, adata, layer=layer), batch_size)

    # ---------------------------------------------------------------------------------------------- saving

    def save(self, directory: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write the model directory: weights, schema, configuration, metrics and model card; whole or not at all."""
        write_model(Path(directory), self.trained, overwrite=overwrite)

    @classmethod
    @own_torch_defaults()
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
        return cls.of(read_model(Path(directory), device))

    @classmethod
    def of(cls, trained: TrainedModel) -> ScLDM:
        """Wrap a trained model."""
        model = cls.__new__(cls)
        model.config, model.schema, model._source, model._trained = trained.config, trained.schema, None, trained
        return model

    def hash(self) -> str:
        """Fingerprint of weights, architecture and schema, 16 hexadecimal digits, written into generated files."""
        return self.trained.fingerprint()

    @own_torch_defaults()
    def parameter_counts(self) -> dict[str, int]:
        """Count the weights of each stage, ``vae`` and ``prior``."""
        return parameter_counts(self.config, self.schema)


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)

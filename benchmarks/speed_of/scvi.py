"""Measurements of scVI, where scvi-tools is installed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from speed_of.job import CONDITION, Job, Settings
from speed_of.meters import Memory, timed


def scvi_model(settings: Settings, genes: int, memory: Memory) -> tuple[Any, ad.AnnData, dict[str, Any]]:
    import scvi

    for name in ("lightning.fabric", "lightning.pytorch", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    scvi.settings.seed = 0
    adata = ad.read_h5ad(settings.cells(genes))
    memory.start()
    scvi.model.SCVI.setup_anndata(adata, batch_key=CONDITION)
    keywords = {
        "accelerator": "cpu" if settings.on_cpu else "gpu", "devices": 1, "train_size": 1.0,
        "check_val_every_n_epoch": None, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False, "default_root_dir": settings.work,
    }  # fmt: skip
    return scvi.model.SCVI(adata), adata, keywords


def measure_scvi_training(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    model, adata, keywords = scvi_model(settings, job.genes, memory)
    model.train(max_epochs=1, batch_size=job.batch, **keywords)
    n_epochs = max(2, settings.repeats)

    def train() -> None:
        model.train(max_epochs=n_epochs, batch_size=job.batch, **keywords)

    seconds = timed(settings, train, 1, warm_ups=0)
    return {"seconds": seconds, "cells": n_epochs * adata.n_obs, **memory.result()}


def measure_scvi_encoding(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    model, adata, keywords = scvi_model(settings, job.genes, memory)
    model.train(max_epochs=1, max_steps=3, batch_size=job.batch, **keywords)
    seconds = timed(settings, lambda: model.get_latent_representation(batch_size=job.batch), min(settings.repeats, 3))
    return {"seconds": seconds, "cells": adata.n_obs, **memory.result()}


def measure_scvi_sampling(settings: Settings, job: Job, memory: Memory) -> dict[str, Any]:
    from scldm.evaluation.baselines.scvi import SCVI

    model, adata, keywords = scvi_model(settings, job.genes, memory)
    model.train(max_epochs=1, max_steps=3, batch_size=job.batch, **keywords)
    n_cells, path = max(job.batch, 256), Path(settings.work) / "sampled.h5ad"
    labels = adata.obs[CONDITION].cat.codes.to_numpy().astype(np.int64)
    depths = np.asarray(adata.X.sum(axis=1), dtype=np.float64).ravel()

    def from_prior() -> sp.csr_matrix:
        system = SCVI(model.module.eval(), labels, depths)
        return system.sample(n_cells, np.random.default_rng(0))[0]

    def from_posterior() -> sp.csr_matrix:
        drawn = model.posterior_predictive_sample(indices=np.arange(n_cells), batch_size=job.batch)
        return sp.csr_matrix(drawn.to_scipy_sparse())

    def sample() -> None:
        counts = from_prior() if job.system == "scVI, prior" else from_posterior()
        obs = pd.DataFrame(index=[f"cell_{i}" for i in range(n_cells)])
        ad.AnnData(counts, obs, pd.DataFrame(index=adata.var_names)).write_h5ad(path)

    if job.system == "scVI, prior":
        model.module.to("cpu")
    return {"seconds": timed(settings, sample, min(settings.repeats, 3)), "cells": n_cells, **memory.result()}

"""Train on a 70/30 split of a data set, generate, and judge: generated cells, and the autoencoder by itself.

    SCLDM_DATA=... python benchmarks/fidelity.py pbmc_facs_zheng [--conditions cell_type] [--seed 0]

Prints one table: ceiling, generated, autoencoder alone (training cells encoded, decoded, counts redrawn), baseline,
memoriser; and the training time. Fields of the configuration are set as with `scldm train`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
import tyro

from scldm.config import RunConfig
from scldm.data import read_counts, split_cells
from scldm.evaluation import evaluate
from scldm.evaluation.genes import gene_gene_agreement, gene_means
from scldm.evaluation.space import log1p_cp10k
from scldm.model import ScLDM


def reconstruct(model: ScLDM, adata: ad.AnnData, conditions: list[str], seed: int = 0) -> ad.AnnData:
    """Encode cells, sample their posterior, decode, and draw counts at their own depth."""
    source, vae = model.open_aligned(adata), model._trained().vae
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    with torch.inference_mode():
        for start in range(0, source.n_cells, 512):
            batch = source.batch(np.arange(start, min(start + 512, source.n_cells)))
            posterior = vae.encode(batch)
            latents = posterior.sample(torch.randn(posterior.mean.shape, generator=generator))
            k = model._dispersion_attribute
            counts = vae.sample_counts(
                latents, batch.library_size, generator, None if k is None else batch.categorical[:, k]
            )
            blocks.append(sp.csr_matrix(counts.numpy()))
    var = pd.DataFrame(index=list(model.schema.genes))
    return ad.AnnData(sp.vstack(blocks, format="csr"), obs=adata.obs[conditions].copy(), var=var)


def gene_gene_200(generated: ad.AnnData, test: ad.AnnData, train: ad.AnnData) -> float:
    """Gene-gene correlation agreement over 200 genes, all held-out cells against as many generated ones."""
    genes = list(test.var_names)
    spaces = {k: log1p_cp10k(read_counts(v[:, genes])) for k, v in {"g": generated, "h": test, "t": train}.items()}
    return gene_gene_agreement(spaces["g"], spaces["h"], np.argsort(-gene_means(spaces["t"]))[:200])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("--conditions", nargs="*", default=["cell_type"])
    parser.add_argument("--group-by", default=None)
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--work", default=None, help="keep the training there (and resume it)")
    parser.add_argument("--json", default=None)
    parser.add_argument("--plot", default=None)
    arguments, overrides = parser.parse_known_args()
    torch.set_num_threads(arguments.threads)
    config = tyro.cli(RunConfig, args=overrides, default=RunConfig())

    if arguments.dataset == "demo":
        from scldm.data import load_demo

        adata = load_demo()
    else:
        adata = ad.read_h5ad(Path(os.environ["SCLDM_DATA"]) / f"{arguments.dataset}.h5ad")
    conditions = arguments.conditions
    train_cells, test_cells = split_cells(
        adata.n_obs,
        fraction=0.3,
        seed=arguments.split_seed,
        stratify_by=adata.obs[conditions[0]].to_numpy(),
        group_by=None if arguments.group_by is None else adata.obs[arguments.group_by],
    )
    train, test = adata[train_cells].copy(), adata[test_cells].copy()
    started = time.perf_counter()
    model = ScLDM(train, conditions=conditions, config=config)
    summary = model.train(arguments.work)
    trained = time.perf_counter()
    test = test[:, model.schema.genes].copy()
    rows = np.random.default_rng(config.seed).choice(train.n_obs, test.n_obs, replace=train.n_obs < test.n_obs)
    generated = model.sample(conditions=train.obs[conditions].iloc[rows], guidance=arguments.guidance, seed=config.seed)
    sampled = time.perf_counter()
    print(f"training {trained - started:.0f} s, sampling {sampled - trained:.0f} s")
    print("vae", summary.vae, "prior", summary.prior)
    report = evaluate(test, generated, train=train, conditions=conditions)
    redrawn = reconstruct(model, train[rows].copy(), conditions)
    alone = evaluate(test, redrawn, train=train, conditions=conditions)
    for name, cells in (("generated", generated), ("autoencoder", redrawn), ("training cells", train)):
        print(f"gene-gene agreement, 200 genes, all held-out cells: {name} {gene_gene_200(cells, test, train):.3f}")
    print("\n--- generated\n" + report.table() + "\n--- autoencoder alone\n" + alone.table())
    if arguments.json:
        content = {"generated": report.to_dict(), "autoencoder": alone.to_dict(), "seconds": trained - started}
        Path(arguments.json).write_text(json.dumps(content))
    if arguments.plot:
        report.plot(arguments.plot)


if __name__ == "__main__":
    main()

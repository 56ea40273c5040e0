"""Hold a combination of two attributes out of training, ask for it, and classify what comes.

    SCLDM_DATA=... python benchmarks/held_out_combination.py kang_ifnb_scgen cell_type=B condition=stim

The classifiers (standardised logistic regression on 50 principal components of log1p CP10K) are trained on 70 % of all
real cells, the held-out combination included; their accuracy on the other 30 % of the real cells of that combination
stands beside that on the generated cells.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import torch
import tyro
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scldm.config import RunConfig
from scldm.data import read_counts, split_cells
from scldm.evaluation.cells import log1p_cp10k
from scldm.model import ScLDM


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("values", nargs=2, metavar="NAME=VALUE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-cells", type=int, default=500)
    parser.add_argument("--work", default=None, help="keep the training there (and resume it)")
    arguments, overrides = parser.parse_known_args()
    torch.set_num_threads(arguments.threads)
    config = tyro.cli(RunConfig, args=overrides, default=RunConfig())
    wanted = dict(pair.split("=", 1) for pair in arguments.values)

    adata = ad.read_h5ad(Path(os.environ["SCLDM_DATA"]) / f"{arguments.dataset}.h5ad")
    held_out = np.logical_and.reduce([(adata.obs[k] == v).to_numpy() for k, v in wanted.items()])
    train = adata[~held_out].copy()
    print(f"{held_out.sum()} cells of {wanted} held out, {train.n_obs} to train on")
    started = time.perf_counter()
    model = ScLDM(train, conditions=list(wanted), config=config)
    print(model.train(arguments.work))
    print(f"training {time.perf_counter() - started:.0f} s")

    features = np.asarray(log1p_cp10k(read_counts(adata[:, list(model.schema.genes)])).todense())
    joint = adata.obs[list(wanted)].astype(str).agg("/".join, axis=1).to_numpy()
    fit, check = split_cells(adata.n_obs, fraction=0.3, seed=0, stratify_by=joint)
    space = PCA(50, random_state=0).fit(features[fit])
    classifiers = {
        name: make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(
            space.transform(features[fit]), adata.obs[name].astype(str).to_numpy()[fit]
        )
        for name in wanted
    }

    def called(x: np.ndarray, name: str) -> float:
        return float((classifiers[name].predict(space.transform(x)) == wanted[name]).mean())

    real = check[held_out[check]]
    print("real held-out cells called", {k: round(called(features[real], k), 3) for k in wanted}, f"(n = {len(real)})")
    requests: dict[str, float | dict[str, float]] = {"joint 1": 1.0, "joint 2": 2.0}
    for scales in ((1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (2.0, 4.0)):
        requests[f"additive {scales}"] = dict(zip(wanted, scales, strict=True))
    warnings.simplefilter("ignore", UserWarning)  # That the combination was never observed is the point.
    for name, guidance in requests.items():
        cells = model.sample(arguments.n_cells, conditions=wanted, guidance=guidance, seed=0)
        x = np.asarray(log1p_cp10k(read_counts(cells)).todense())
        rates = {k: round(called(x, k), 3) for k in wanted}
        means = np.corrcoef(x.mean(0), features[held_out].mean(0))[0, 1]
        control = features[(adata.obs[next(iter(wanted))] == wanted[next(iter(wanted))]).to_numpy() & ~held_out].mean(0)
        response = np.corrcoef(x.mean(0) - control, features[held_out].mean(0) - control)[0, 1]
        print(f"guidance {name}: called {rates}, correlation of gene means {means:.4f}, of the response {response:.3f}")


if __name__ == "__main__":
    main()

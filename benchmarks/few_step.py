"""What few network evaluations cost in fidelity: the models of the fidelity table, sampled with several solvers.

    python benchmarks/few_step.py [--runs DIR] [--datasets NAME ...] [--cells 2000] [--guidance 1.0] [--refit]

DIR is where `benchmarks/fidelity.py` left its models and cells. Every solver makes the same cells, with labels of
training cells and from the same noise, and is compared with halves of the held-out cells: distances in the space of
principal components of `scldm evaluate`, mean over many halves, the same cells of every solver against each. The ratio
is to Heun's method with 25 steps, 50 evaluations; Heun's method from other noise shows what such a ratio is worth. With
--refit the few-step solver is fitted anew by the present code instead of read from the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import torch

from scldm import ScLDM
from scldm.data import open_source
from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.draws import split, stratified_choice
from scldm.evaluation.labels import joint_labels
from scldm.evaluation.metrics.frechet import frechet_distance
from scldm.evaluation.metrics.transport import wasserstein2
from scldm.evaluation.spaces import FeatureSpace
from scldm.evaluation.table import markdown_table
from scldm.prior.few_step.fit import fit_to_prior
from scldm.prior.latents import LatentStore
from scldm.tasks.representation import encoded_blocks

#: Solver, steps, network evaluations per cell, seed. The first is what the others are compared with.
SOLVERS = (
    ("heun", 25, 50, 0), ("heun", 25, 50, 1), ("few_step", 4, 4, 0), ("midpoint", 2, 4, 0), ("heun", 2, 4, 0),
    ("euler", 4, 4, 0),
)  # fmt: skip


def refitted(model: ScLDM, training_cells: Path) -> ScLDM:
    """Fit the few-step solvers of a model as its training does."""
    trained, config = model.trained, model.config
    source = open_source(training_cells, layer=config.data.layer, schema=model.schema, missing_labels="unlabelled")
    with tempfile.TemporaryDirectory() as directory:
        encoded = encoded_blocks(trained.vae, source, use_attributes=True)
        store = LatentStore.write(directory, encoded, source.n_cells)
        started = time.perf_counter()
        fitted = fit_to_prior(trained.prior, store, config.prior, config.seed, config.seeding)
    print(f"{training_cells.parent.name}: fitted in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return ScLDM.of(dataclasses.replace(trained, few_step=fitted))


def rows_of(run: Path, n_cells: int, n_splits: int, guidance: float, fit_anew: bool) -> list[list[str]]:
    """Compare the solvers on one data set."""
    model = ScLDM.load(run / "model", "cpu")
    if fit_anew:
        model = refitted(model, run / "train.h5ad")
    names, layer = model.schema.categorical_names, model.config.data.layer
    train, held_out = (ad.read_h5ad(run / f"{name}.h5ad") for name in ("train", "held_out"))
    chosen = np.sort(np.resize(np.random.default_rng(0).permutation(train.n_obs), n_cells))
    labels = train.obs[list(model.schema.attribute_names)].iloc[chosen].reset_index(drop=True)

    def cells(adata: ad.AnnData, name: str) -> Cells:
        read = read_cells(adata, name, layer, names, optional=True)
        return read.with_genes(read.genes[read.genes.isin(model.schema.genes)])

    real = cells(held_out, "held-out")
    space = FeatureSpace.fit(cells(train, "training").log1p_cp10k)
    reference = space.transform(real)
    generated = [
        space.transform(
            cells(
                model.sample(conditions=labels, guidance=guidance, solver=solver, steps=steps, seed=seed), "generated"
            ).with_genes(real.genes)
        )
        for solver, steps, _, seed in SOLVERS
    ]
    random = np.random.default_rng(1)
    values = []
    for _ in range(n_splits):
        _, half = split(joint_labels(real.labels), 2, random)
        taken = stratified_choice(joint_labels(labels), len(half), random)
        values.append(
            [(wasserstein2(x[taken], reference[half]), frechet_distance(x[taken], reference[half])) for x in generated]
        )
    means = np.mean(values, axis=0)
    return [
        [
            run.name,
            f"{solver}, {steps} steps" + (", other noise" if seed else ""),
            str(evaluations),
            *(f"{mean:.4g} ({100 * (mean / fine - 1):+.1f} %)" for mean, fine in zip(row, means[0], strict=True)),
        ]
        for (solver, steps, evaluations, seed), row in zip(SOLVERS, means, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--datasets", nargs="*", default=None)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    header = ["data", "solver", "evaluations", "W2", "Frechet distance"]
    for run in sorted(path.parent for path in arguments.runs.glob("*/model")):
        if arguments.datasets is None or run.name in arguments.datasets:
            rows = rows_of(run, arguments.cells, arguments.splits, arguments.guidance, arguments.refit)
            print(markdown_table(header, rows), flush=True)


if __name__ == "__main__":
    main()

"""What hiding all attributes of a tenth of the cells together does: one model with it, one without, judged alike.

    SCLDM_DATA=... python benchmarks/null_field.py train --attributes cell_type condition --joint 0.1 --output DIR
    python benchmarks/null_field.py table DIR

The first command trains one model of `kang_ifnb_scgen` (30 % of the cells held out) and judges, against the held-out
cells: cells generated as asked, the same guided by 2, and cells of which nothing is asked, which show the null field by
itself. It also encodes the held-out cells without their attributes, as `encode` always does, and measures what is left
of them: the accuracy of the labels of the nearest training cells, and the likelihood of the counts. It leaves one JSON
in DIR; the second command makes the table of all that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import KNeighborsClassifier

from scldm import ScLDM, evaluate
from scldm.config import DataConfig, RunConfig
from scldm.data.labels import as_labels
from scldm.data.split import split_cells
from scldm.tasks.cells import open_aligned
from scldm.tasks.representation import ENCODE_BATCH, encode
from scldm.training.distributed import make_accelerator
from scldm.vae.objective import VAEObjective

METRICS = ("frechet_distance", "wasserstein2", "mmd2", "nearest_neighbour_accuracy")
SYSTEMS = ("ceiling", "as asked", "guided by 2", "nothing asked")
LABELS = ("cell_type", "condition")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train")
    one.add_argument("--data", type=Path, default=Path(os.environ.get("SCLDM_DATA", ".")) / "kang_ifnb_scgen.h5ad")
    one.add_argument("--attributes", nargs="+", default=list(LABELS))
    one.add_argument("--joint", type=float, default=0.1)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--cells", type=int, default=None, help="cells each stage is trained on; the defaults if left out")
    one.add_argument("--device", choices=["auto", "cpu"], default="auto")
    one.add_argument("--output", type=Path, required=True)
    all_of_them = commands.add_parser("table")
    all_of_them.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "table":
        print(table([json.loads(path.read_text()) for path in sorted(arguments.directory.glob("*.json"))]))
        return
    torch.set_num_threads(1)
    measured = measure(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = f"{len(arguments.attributes)}-attributes-joint-{arguments.joint:g}-seed-{arguments.seed}.json"
    (arguments.output / name).write_text(json.dumps(measured, indent=1))
    print(json.dumps(measured))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    cells = ad.read_h5ad(arguments.data)
    stratum = pd.Series(["/".join(row) for row in zip(*(as_labels(cells.obs[c]) for c in LABELS), strict=True)])
    training, held_out = split_cells(cells.n_obs, fraction=0.3, seed=arguments.seed, stratify_by=stratum)
    train, real = cells[training].copy(), cells[held_out].copy()

    model = ScLDM(train, config=configuration(arguments))
    model.train(accelerator=make_accelerator("auto", cpu=arguments.device == "cpu"))
    asked = real.obs[arguments.attributes]
    # A field learns nothing of its attributes where they are not asked for: these cells are the null field's own.
    made = {
        "as asked": model.sample(conditions=asked, seed=arguments.seed),
        "guided by 2": model.sample(conditions=asked, guidance=2.0, seed=arguments.seed),
        "nothing asked": model.sample(real.n_obs, seed=arguments.seed),
    }
    report = evaluate(real, made, train=train, conditions=arguments.attributes, seed=arguments.seed)
    values = {m: {system: report.value(m, system) for system in SYSTEMS} for m in METRICS}
    agreement = {}
    for label in set(LABELS) & set(arguments.attributes):
        systems = ("ceiling", "as asked", "guided by 2")
        agreement[label] = {s: report.value("label_agreement", s, condition=label) for s in systems}
    return {
        "attributes": arguments.attributes,
        "joint": arguments.joint,
        "seed": arguments.seed,
        "metrics": values,
        "label_agreement": agreement,
        "encoded": encoded_quality(model, train, real),
        "validation_loss": {
            "vae": model.trained.summary.vae["best_loss"],
            "prior": model.trained.summary.prior["best_loss"],
        },
        "device": str(model.trained.device),
    }


def configuration(arguments: argparse.Namespace) -> RunConfig:
    config = RunConfig(data=DataConfig(conditions=tuple(arguments.attributes)), seed=arguments.seed)
    stages = {
        name: dataclasses.replace(getattr(config, name), cells=arguments.cells or getattr(config, name).cells)
        for name in ("vae_training", "prior_training")
    }
    nets = {
        name: dataclasses.replace(getattr(config, name), joint_attribute_dropout=arguments.joint)
        for name in ("vae", "prior")
    }
    return dataclasses.replace(config, **stages, **nets)


def encoded_quality(model: ScLDM, train: ad.AnnData, real: ad.AnnData) -> dict[str, float]:
    """What the latents of held-out cells know, where the encoder is not told the attributes."""
    trained = model.trained
    sources = [open_aligned(trained, adata) for adata in (train, real)]
    latents = [encode(trained, source) for source in sources]
    quality = {}
    for label in LABELS:
        classifier = KNeighborsClassifier(15).fit(latents[0], as_labels(train.obs[label]))
        quality[f"kNN accuracy of {label}"] = float(classifier.score(latents[1], as_labels(real.obs[label])))
    objective = VAEObjective(trained.vae).eval()
    for name, hidden in (("hidden", True), ("told", False)):
        quality[f"nll per cell, attributes {name}"] = _nll(objective, sources[1], hidden=hidden)
    return quality


@torch.no_grad()
def _nll(objective: VAEObjective, source: Any, *, hidden: bool) -> float:
    device, config, losses = objective.network.decoder.unpooling.read_out.device, objective.network.config, []
    for start in range(0, source.n_cells, ENCODE_BATCH):
        batch = source.batch(np.arange(start, min(start + ENCODE_BATCH, source.n_cells))).to(device)
        noise = torch.zeros(batch.n_cells, config.n_latents, config.latent_channels, device=device)
        losses.append(objective(batch.hide_attributes() if hidden else batch, {"latents": noise})["nll"])
    return float(torch.cat(losses).mean())


def table(runs: list[dict[str, Any]]) -> str:
    """Means over seeds, and half the range where there are several."""
    frames = []
    for run in runs:
        key = {"K": len(run["attributes"]), "joint": run["joint"], "seed": run["seed"]}
        cells = {f"{s}: {m}": v for m, of in run["metrics"].items() for s, v in of.items()}
        cells |= {f"{s}: agreement of {c}": v for c, of in run["label_agreement"].items() for s, v in of.items()}
        frames.append(key | cells | run["encoded"])
    data = pd.DataFrame(frames).set_index(["K", "joint", "seed"])
    grouped = data.groupby(["K", "joint"])
    mean, half = grouped.mean().T, (grouped.max() - grouped.min()).T / 2
    lines = ["| | " + " | ".join(f"K = {k}, joint {j:g}" for k, j in mean.columns) + " |"]
    lines.append("|---" * (1 + len(mean.columns)) + "|")
    for row in mean.index:
        values = [f"{mean.at[row, c]:.3f} ± {half.at[row, c]:.3f}" for c in mean.columns]
        lines.append(f"| {row} | " + " | ".join(values) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

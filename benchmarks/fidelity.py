"""Every data set, every metric, every generator, several seeds: the tables of the README, by one command.

    SCLDM_DATA=DIR[:DIR...] python benchmarks/fidelity.py [--datasets NAME ...] [--seeds 0 1 2] [--output DIR]

Runs `scldm benchmark` (30 % of the cells held out, default settings) on each data set with each seed, which is that of
the split, of the training and of all that is drawn, and leaves ``DIR/seed-K/NAME/`` with its report, model and cells. A
benchmark that is done is not run again, so a run that was stopped continues with the next one; one that was done with
another configuration stops the command. Writes ``DIR/seed-K/table.md`` (all metrics with intervals) and ``targets.md``
(what has to be reached and whether it is), and ``DIR/summary.md`` over the seeds: of the main numbers of all runs that
``--runs FILE`` holds, to which it adds its own, so that seeds may be run on other machines. The first five data sets
are those that settings were chosen on; three of the others are made by `benchmarks/packaged_data.py`. With scvi-tools
installed (``pip install -e ".[scvi]"``) scVI is among the baselines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from targets import Target, as_real, check

from scldm.benchmark import benchmark, complete_config
from scldm.config import RunConfig, load_config
from scldm.evaluation import EvaluationReport
from scldm.evaluation.baselines.scvi import is_installed
from scldm.evaluation.table import markdown_table, metric_table
from scldm.evaluation.verdict import at_ceiling, in_own_space

SYSTEMS = (
    "ceiling",
    "scldm",
    "autoencoder",
    "autoencoder_of_training",
    "memoriser",
    "independent_nb",
    "pca_gaussian",
    "scvi",
)


RUNS = Path(__file__).parent / "fidelity_runs.json"

#: Of these the summary over the seeds shows distances: the limit, what the autoencoder loses, and all that is lost.
SUMMARISED = ("ceiling", "autoencoder", "scldm")


@dataclass(frozen=True)
class Plan:
    """How a data set is benchmarked."""

    conditions: tuple[str, ...]
    group_by: str | None = None


# Conditions are what can be recognised in new cells: not the sex of the donors of onek1k, about which a classifier is
# right as often as a coin in cells of donors that it has not seen.
DATASETS = {
    "pbmc_facs_zheng": Plan(("cell_type",)),
    "kang_ifnb_scgen": Plan(("cell_type", "condition")),
    "onek1k_subset": Plan(("cell_type",), group_by="indiv"),
    "worm_embryo_packer": Plan(("cell_type", "batch")),
    "mouse_sie_scdesign2": Plan(("cell_type",)),
    "norman_gi_perturbench": Plan(("perturbation",)),
    "mcfaline_kinases_perturbench": Plan(("cell_type",)),
    "baron_mouse": Plan(("cell_type",)),
    "baron_human": Plan(("cell_type",)),
    "pbmc3k": Plan(("cell_type",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--scvi", choices=["auto", "yes", "no"], default="auto")
    parser.add_argument("--runs", type=Path, default=None, help="fidelity_runs.json; with --config DIR/runs.json")
    parser.add_argument("--config", type=Path, default=None, help="how to train; the defaults if left out")
    arguments = parser.parse_args()
    if "SCLDM_DATA" not in os.environ:
        parser.error("set SCLDM_DATA to the directory, or directories, with the data sets")
    files = {name: _file(name, os.environ["SCLDM_DATA"]) for name in arguments.datasets}
    if missing := [name for name, file in files.items() if file is None]:
        parser.error(f"no directory of SCLDM_DATA has {', '.join(f'{name}.h5ad' for name in missing)}")
    torch.set_num_threads(arguments.threads)
    config = None if arguments.config is None else load_config(arguments.config)
    # What is kept in the repository is of the defaults.
    runs_file = arguments.runs or (RUNS if config is None else arguments.output / "runs.json")

    for seed, (name, file) in itertools.product(arguments.seeds, files.items()):
        directory, plan = arguments.output / f"seed-{seed}" / name, DATASETS[name]
        if (directory / "metrics.json").exists():
            if differences := _differences(directory, config, plan, arguments, seed):
                parser.error(
                    f"{directory} is done already, but otherwise: {'; '.join(differences)}. Delete it, choose "
                    "another --output, or ask for the same"
                )
            print(f"--- {name}, seed {seed}: done already", file=sys.stderr)
            continue
        print(f"--- {name}, seed {seed}", file=sys.stderr)
        directory.parent.mkdir(parents=True, exist_ok=True)
        benchmark(
            file,
            directory,
            conditions=plan.conditions,
            group_by=plan.group_by,
            config=config,
            scvi=arguments.scvi,
            seed=seed,
        )
    for seed in arguments.seeds:
        there = arguments.output / f"seed-{seed}"
        table, targets = write_tables({name: there / name for name in files}, there)
        print(table)
        print(targets)
    runs = json.loads(runs_file.read_text(encoding="utf-8")) if runs_file.exists() else {}
    for name, seed in itertools.product(files, arguments.seeds):
        runs.setdefault(name, {})[str(seed)] = numbers_of(arguments.output / f"seed-{seed}" / name)
    runs_file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    summary = summary_table({name: runs[name] for name in DATASETS if name in runs})
    (arguments.output / "summary.md").write_text(summary, encoding="utf-8")
    print(summary)


def _file(name: str, directories: str) -> Path | None:
    """Find a data set in the first directory that has it."""
    files = [Path(directory) / f"{name}.h5ad" for directory in directories.split(os.pathsep)]
    return next((file for file in files if file.exists()), None)


def _differences(
    directory: Path, config: RunConfig | None, plan: Plan, arguments: argparse.Namespace, seed: int
) -> list[str]:
    """Say how a benchmark that is done differs from what is asked for, in words."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    resolved = complete_config(config or RunConfig(), plan.conditions, (), plan.group_by, None, seed)
    asked = _flat(json.loads(json.dumps(resolved.to_dict())))
    stored = _flat(summary["config"])
    found = [
        f"{key} is {stored.get(key, 'not there')} and not {asked.get(key, 'not there')}"
        for key in dict.fromkeys([*asked, *stored])
        if (key in asked, asked.get(key)) != (key in stored, stored.get(key))
    ]
    with_scvi = arguments.scvi == "yes" or (arguments.scvi == "auto" and is_installed())
    if with_scvi != ("scvi_training" in summary["seconds"]):
        found.append(f"scVI was {'not ' if with_scvi else ''}among the baselines")
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested settings as ``vae.n_latents: 32``."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


def write_tables(directories: dict[str, Path], output: Path) -> tuple[str, str]:
    """Put the reports of several benchmarks together.

    Parameters
    ----------
    directories
        What `scldm benchmark` made, by the name of the data set.
    output
        Directory for ``table.md`` and ``targets.md``.

    Returns
    -------
    The two tables.
    """
    reports = {name: EvaluationReport.load(directory / "metrics.json") for name, directory in directories.items()}
    systems = [system for system in SYSTEMS if any(system in report.systems.names for report in reports.values())]
    table = _sizes(directories) + "\n" + metric_table(reports, systems)
    targets = _targets({name: check(report) for name, report in reports.items()})
    (output / "table.md").write_text(table, encoding="utf-8")
    (output / "targets.md").write_text(targets, encoding="utf-8")
    return table, targets


def numbers_of(run: Path) -> dict[str, Any]:
    """Pick what :func:`summary_table` shows from what `scldm benchmark` left."""
    report = EvaluationReport.load(run / "metrics.json")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    verdicts = [at_ceiling(row, "scldm") for row in report.rows if not in_own_space(row)]

    def value(metric: str, system: str) -> float:
        found = report.value(metric, system)
        return math.nan if found is None else round(found, 5)

    metrics = ("nearest_neighbour_accuracy", "frechet_distance")
    return {
        "n_training_cells": summary["n_training_cells"],
        "training_seconds": summary["seconds"]["training"],
        **{metric: {system: value(metric, system) for system in SUMMARISED} for metric in metrics},
        "as_real": as_real(report, "nearest_neighbour_accuracy", "scldm") is True,
        **{metric: value(metric, "scldm") for metric in ("nearest_training_ratio", "membership_auroc")},
        "n_worse": verdicts.count(False),
        "n_judged": len(verdicts) - verdicts.count(None),
    }


def summary_table(runs: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Lay out what matters most, as means over the seeds, with the lowest and the highest value.

    Parameters
    ----------
    runs
        :func:`numbers_of` every run, by the name of the data set and the seed.
    """
    header = ["data", "training cells", "1-NN: real", "autoencoder, held out", "generated", "generated - autoencoder",
              "as real", "Frechet / ceiling: autoencoder", "generated", "nearest training", "membership",
              "metrics worse than real", "training (s)"]  # fmt: skip
    rows = []
    for name, seeds in runs.items():
        ones = list(seeds.values())
        real, limit, ours = (
            np.array([one["nearest_neighbour_accuracy"][system] for one in ones]) for system in SUMMARISED
        )
        distances = {system: np.array([one["frechet_distance"][system] for one in ones]) for system in SUMMARISED}
        rows.append([
            name,
            f"{ones[0]['n_training_cells']:,}",
            *(_spread(values) for values in (real, limit, ours)),
            _spread(ours - limit, "+.3f"),
            f"{sum(one['as_real'] for one in ones)} of {len(ones)}",
            *(_spread(distances[system] / distances["ceiling"], ".2f") for system in ("autoencoder", "scldm")),
            *(_spread([one[metric] for one in ones]) for metric in ("nearest_training_ratio", "membership_auroc")),
            " ".join(f"{one['n_worse']}/{one['n_judged']}" for one in ones),
            _spread([one["training_seconds"] for one in ones], ".0f"),
        ])  # fmt: skip
    return markdown_table(header, rows)


def _spread(values: Sequence[float] | np.ndarray, form: str = ".3f") -> str:
    mean = format(np.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def _sizes(directories: dict[str, Path]) -> str:
    """Lay out how large the data sets are and how long everything took."""
    parts = ("training", "sampling", "scvi_training", "scvi_sampling", "judging")
    rows = []
    for name, directory in directories.items():
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        sizes = [f"{summary[key]:,}" for key in ("n_training_cells", "n_held_out_cells", "n_genes")]
        seconds = [f"{summary['seconds'][part]:.0f}" if part in summary["seconds"] else "-" for part in parts]
        rows.append([name, *sizes, *seconds, str(summary["threads"])])
    header = ["data", "training cells", "held-out cells", "genes", *(f"{p.replace('_', ' ')} (s)" for p in parts)]
    return markdown_table([*header, "threads"], rows)


def _targets(checked: dict[str, list[Target]]) -> str:
    """Lay out what was reached, one column per data set; what is missed has a cross."""
    marks = {True: "", False: " ✗", None: ""}
    names = dict.fromkeys(target.name for targets in checked.values() for target in targets)
    cells = {name: {t.name: t.value + marks[t.met] for t in targets} for name, targets in checked.items()}
    rows = [[name, *(column.get(name, "-") for column in cells.values())] for name in names]
    outcomes = {name: [t.met for t in targets if t.met is not None] for name, targets in checked.items()}
    rows.append(["targets met", *(f"{sum(met)} of {len(met)}" for met in outcomes.values())])
    n_met, n_judged = (sum(count(met) for met in outcomes.values()) for count in (sum, len))
    return markdown_table(["target", *checked], rows) + f"\n{n_met} of {n_judged} targets are met.\n"


if __name__ == "__main__":
    main()

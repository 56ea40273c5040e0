"""Every data set, every metric, every generator: the table of the README, by one command.

    SCLDM_DATA=... python benchmarks/fidelity.py [--datasets NAME ...] [--output DIR] [--threads 2]

Runs `scldm benchmark` (30 % of the cells held out, default settings, fixed seeds) on each data set and leaves
``DIR/NAME/`` with its report, model and cells. A data set that is done is not run again, so a run that was stopped
continues with the next one; one that was done with another seed or configuration stops the command. Writes
``DIR/table.md`` (all metrics with intervals) and ``DIR/targets.md`` (what has to be reached and whether it is). With
scvi-tools installed (``pip install -e ".[scvi]"``) scVI is among the baselines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from targets import Target, check

from scldm.benchmark import benchmark, complete_config
from scldm.config import RunConfig, load_config
from scldm.evaluation import EvaluationReport
from scldm.evaluation.baselines.scvi import is_installed
from scldm.evaluation.table import markdown_table, metric_table

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
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scvi", choices=["auto", "yes", "no"], default="auto")
    parser.add_argument("--config", type=Path, default=None, help="how to train; the defaults if left out")
    arguments = parser.parse_args()
    if "SCLDM_DATA" not in os.environ:
        parser.error("set SCLDM_DATA to the directory with the data sets")
    torch.set_num_threads(arguments.threads)
    config = None if arguments.config is None else load_config(arguments.config)

    for name in arguments.datasets:
        directory, plan = arguments.output / name, DATASETS[name]
        if (directory / "metrics.json").exists():
            if differences := _differences(directory, config, plan, arguments):
                parser.error(
                    f"{name} is done already, but otherwise: {'; '.join(differences)}. Delete '{directory}', choose "
                    "another --output, or ask for the same"
                )
            print(f"--- {name}: done already", file=sys.stderr)
            continue
        print(f"--- {name}", file=sys.stderr)
        benchmark(
            Path(os.environ["SCLDM_DATA"]) / f"{name}.h5ad",
            directory,
            conditions=plan.conditions,
            group_by=plan.group_by,
            config=config,
            scvi=arguments.scvi,
            seed=arguments.seed,
        )
    directories = {name: arguments.output / name for name in arguments.datasets}
    table, targets = write_tables(directories, arguments.output)
    print(table)
    print(targets)


def _differences(directory: Path, config: RunConfig | None, plan: Plan, arguments: argparse.Namespace) -> list[str]:
    """Say how a benchmark that is done differs from what is asked for, in words."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    resolved = complete_config(config or RunConfig(), plan.conditions, (), plan.group_by, None, arguments.seed)
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
    words = {True: "yes", False: "no", None: "-"}
    rows = [[name, t.name, t.value, words[t.met]] for name, targets in checked.items() for t in targets]
    n_met, n_judged = (sum(row[3] in kinds for row in rows) for kinds in (("yes",), ("yes", "no")))
    return markdown_table(["data", "target", "value", "met?"], rows) + f"\n{n_met} of {n_judged} targets are met.\n"


if __name__ == "__main__":
    main()

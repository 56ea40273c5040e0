"""How often the judge calls real cells worse than real ones (5 % is right), and how often it finds what is wrong.

    python benchmarks/calibration.py [--repetitions 200] [--cells 100 400] [--kind real variance lost_type independent]

Synthetic cells, whose truth is known: three types (one of 5 % of the cells), programmes of genes within each, depths
that vary. Every repetition draws held-out cells and generated ones anew and judges them as `scldm evaluate` does, with
fewer halvings and permutations. The kinds of generated cells:

real
    from the same distribution: every metric has to call them worse in 5 % of repetitions;
variance
    in every space they lie round their mean with a variance that is 10 % larger;
lost_type
    the type of 5 % of the cells is missing;
independent
    within a type, every gene has the counts of another cell: nothing goes together any more.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Side
from scldm.evaluation.metrics import METRICS
from scldm.evaluation.placing import fit, fit_spaces, place
from scldm.evaluation.records import rows_of
from scldm.evaluation.scoring import Plan, score
from scldm.evaluation.table import markdown_table
from scldm.evaluation.verdict import at_ceiling

KINDS = ("real", "variance", "lost_type", "independent")
SHARES = (0.6, 0.35, 0.05)
N_GENES = 60


def make_cells(n_cells: int, rng: np.random.Generator, shares: tuple[float, ...] = SHARES) -> Cells:
    """Draw cells of types with these shares; those of a type differ in depth and in two programmes of genes."""
    types = rng.choice(len(SHARES), n_cells, p=np.array(shares) / sum(shares))
    log_rate = np.tile(np.linspace(0.0, 3.0, N_GENES), (n_cells, 1))
    for number in range(len(SHARES)):
        log_rate[types == number, number * 8 : (number + 1) * 8] += 1.5
    log_rate[:, 24::2] += 0.6 * rng.normal(size=(n_cells, 1))
    log_rate[:, 25::4] += 0.4 * rng.normal(size=(n_cells, 1))
    rate = np.exp(log_rate)
    rate *= np.exp(rng.normal(6.3, 0.35, size=(n_cells, 1))) / rate.sum(axis=1, keepdims=True)
    counts = csr_matrix(rng.poisson(rate).astype(np.float32))
    labels = pd.DataFrame({"type": np.array(["common", "frequent", "rare"], dtype=object)[types]})
    return Cells(counts, pd.Index([f"gene{i}" for i in range(N_GENES)]), labels)


def spoil(kind: str, cells: Cells, rng: np.random.Generator) -> Cells:
    """Take the structure out of cells; `variance` is done in the spaces."""
    if kind != "independent":
        return cells
    counts = cells.counts.toarray()
    for label in ("common", "frequent", "rare"):
        own = np.flatnonzero(cells.labels["type"] == label)
        for gene in range(counts.shape[1]):
            counts[own, gene] = counts[rng.permutation(own), gene]
    return Cells(csr_matrix(counts), cells.genes, cells.labels)


def called_worse(
    kind: str,
    n_cells: int,
    repetitions: int,
    *,
    n_halvings: int = 5,
    n_permutations: int = 39,
    seed: int = 0,
    metrics: Collection[str] = tuple(METRICS),
) -> dict[str, float]:
    """Compute for every metric in how many repetitions it calls generated cells of a kind worse than real ones.

    Parameters
    ----------
    kind
        One of `KINDS`.
    n_cells
        On either side of a comparison; twice as many are held out and generated.
    repetitions
        How often to draw all anew.
    n_halvings, n_permutations, seed
        As in `scldm.evaluate`.
    metrics
        Names of those that are computed.
    """
    rng = np.random.default_rng(seed)
    training = make_cells(600, rng)
    spaces = fit_spaces(training, None, seed)
    fitting = place(training, spaces)
    fitted = fit(spaces, fitting, fitting, ["type"])
    infos = {name: metric.info for name, metric in METRICS.items()}
    worse, judged = Counter[str](), Counter[str]()
    for repetition in range(repetitions):
        held_out = place(make_cells(2 * n_cells, rng), spaces)
        shares = (*SHARES[:2], 0.0) if kind == "lost_type" else SHARES
        made = place(spoil(kind, make_cells(2 * n_cells, rng, shares), rng), spaces)
        if kind == "variance":
            made = _wider(made)
        plan = Plan(n_cells, n_halvings, n_permutations, seed + repetition, ("generated",))
        sides: dict[str, Side] = {"ceiling": held_out, "generated": made}
        scores = score([METRICS[name] for name in metrics], fitted, held_out, sides, ["type"], plan)
        for row in rows_of(scores.records, infos):
            is_there = at_ceiling(row, "generated")
            if is_there is not None:
                judged[row.label] += 1
                worse[row.label] += not is_there
    return {label: worse[label] / n for label, n in judged.items()}


def _wider(side: Side) -> Side:
    features = {}
    for name, points in side.features.items():
        centre = points.mean(axis=0)
        features[name] = centre + np.sqrt(1.1) * (points - centre)
    return Side(side.cells, features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--halvings", type=int, default=5)
    arguments = parser.parse_args()
    columns: dict[str, dict[str, float]] = {}
    for kind in arguments.kinds:
        for n_cells in arguments.cells:
            started = time.perf_counter()
            found = called_worse(kind, n_cells, arguments.repetitions, n_halvings=arguments.halvings)
            columns[f"{kind}, n = {n_cells}"] = found
            print(f"{kind}, {n_cells} cells: {time.perf_counter() - started:.0f} s", flush=True)
    rows: Any = dict.fromkeys(label for found in columns.values() for label in found)
    table = [[label, *(f"{found.get(label, float('nan')):.3f}" for found in columns.values())] for label in rows]
    print(markdown_table(["called worse", *columns], table))


if __name__ == "__main__":
    main()

"""How systems are compared: with halves of the held-out cells, or by the recipe of published tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Fitted, Side, Split, take_split
from scldm.evaluation.draws import rng_for, stratified_choice
from scldm.evaluation.fitting import fit, fit_baselines, fit_spaces, place
from scldm.evaluation.metrics import METRICS, Metric
from scldm.evaluation.metrics.kernels import MMD2_PUBLISHED
from scldm.evaluation.prepare import PreparedCells
from scldm.evaluation.records import PRIMARY_SPACE
from scldm.evaluation.spaces import FeatureSpace
from scldm.evaluation.systems import CEILING, MEMORISER

__all__ = ["MAX_PUBLISHED_CELLS", "PUBLISHED_NOTE", "Placed", "Profile", "place_all", "place_published"]

Profile = Literal["standard", "published"]

MAX_BASELINE_CELLS = 5000
MAX_PUBLISHED_CELLS = 5000
PUBLISHED_NOTE = (
    "Profile 'published', the recipe of published tables: 30 principal components of log1p CP10K, fitted on all real "
    f"cells; at most {MAX_PUBLISHED_CELLS:,} of them, not divided in halves, are the reference. There is no ceiling: a "
    "part of every distance comes from the limited number of cells, so compare with numbers at equal n only."
)


@dataclass(frozen=True, eq=False)
class Placed:
    """Everything that a profile compares: what to compute, and all cells, placed in the spaces."""

    metrics: Sequence[Metric]
    fitted: Fitted
    held_out: Side
    systems: Mapping[str, Side]
    n_cells: int
    seed: int

    def splits(self, n_splits: int) -> Iterator[Split]:
        """Divide the held-out cells, one time after the other; without a ceiling they stay whole, once."""
        if CEILING in self.systems:
            for number in range(n_splits):
                yield take_split(self.held_out, self.systems, self.n_cells, number, self.seed)
            return
        sides = {
            name: side.take(stratified_choice(side.cells.labels, self.n_cells, rng_for(self.seed, name)))
            for name, side in {"reference": self.held_out, **self.systems}.items()
        }
        yield Split(sides.pop("reference"), sides)


def place_all(
    cells: PreparedCells,
    generators: Sequence[str],
    conditions: Sequence[str],
    *,
    model: Any,
    seed: int,
    n_resamples: int,
) -> Placed:
    """Place every system in spaces that are fitted on training cells, beside a ceiling; see `evaluate`."""
    spaces = fit_spaces(cells.fitting, model, seed)
    n_baseline = max(cells.n_cells, min(len(cells.held_out), MAX_BASELINE_CELLS))
    everyone = _in_order(cells, generators, fit_baselines(cells.fitting, n_baseline, seed))
    held_out = place(cells.held_out, spaces, "the held-out cells", seed, n_resamples)
    systems = {CEILING: held_out, **{k: place(v, spaces, k, seed, n_resamples) for k, v in everyone.items()}}
    training = systems.get(MEMORISER)
    if training is not None and cells.fitting_rows is not None:
        fitting = training.take(cells.fitting_rows)
    else:
        fitting = place(cells.fitting, spaces, "the fitting cells", seed, n_resamples)
    fitted = fit(spaces, fitting, training, conditions)
    return Placed(tuple(METRICS.values()), fitted, held_out, systems, cells.n_cells, seed)


def place_published(
    cells: PreparedCells, generators: Sequence[str], conditions: Sequence[str], *, seed: int, n_resamples: int
) -> Placed:
    """Place every system in a space that is fitted on all real cells, without a ceiling."""
    baselines = {} if cells.train is None else fit_baselines(cells.train, cells.n_cells, seed)
    spaces = {PRIMARY_SPACE: FeatureSpace.fit(cells.held_out.log1p_cp10k, seed=seed)}
    held_out = place(cells.held_out, spaces, "the real cells", seed, n_resamples)
    everyone = _in_order(cells, generators, baselines)
    systems = {name: place(own, spaces, name, seed, n_resamples) for name, own in everyone.items()}
    metrics = (
        METRICS["wasserstein2"],
        MMD2_PUBLISHED,
        METRICS["frechet_distance"],
        METRICS["nearest_neighbour_accuracy"],
    )
    fitted = fit(spaces, held_out, systems.get(MEMORISER), conditions)
    return Placed(metrics, fitted, held_out, systems, cells.n_cells, seed)


def _in_order(cells: PreparedCells, generators: Sequence[str], fitted: dict[str, Cells]) -> dict[str, Cells]:
    """Put the systems in the order of the report: generators, fitted baselines, given baselines, memoriser."""
    systems = {name: cells.generated[name] for name in generators} | fitted | cells.generated
    return systems if cells.train is None else {**systems, MEMORISER: cells.train}

"""Fit what is the same for all systems, and place every system in it: the standard profile and the published one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scldm.evaluation.baselines import BASELINES, joint_labels
from scldm.evaluation.bootstrap import draw_weights
from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Fitted, Side, Split, take_split
from scldm.evaluation.draws import stratified_choice
from scldm.evaluation.labels import LabelClassifier
from scldm.evaluation.metrics import METRICS, Metric
from scldm.evaluation.metrics.kernels import MMD2_PUBLISHED
from scldm.evaluation.prepare import PreparedCells
from scldm.evaluation.records import LATENT_SPACE, PRIMARY_SPACE
from scldm.evaluation.spaces import FeatureSpace, LatentSpace, Space, VariableGeneSpace
from scldm.evaluation.systems import CEILING, MEMORISER
from scldm.seeds import numpy_rng

__all__ = ["MAX_PUBLISHED_CELLS", "PUBLISHED_NOTE", "Placed", "Profile", "fit", "fit_spaces", "place", "place_all"]

Profile = Literal["standard", "published"]

MAX_BASELINE_CELLS = 5000
# Averaging over splits takes out the luck of one division, which matters where cells are few, and is cheap there.
MAX_SPLITS = 5
MAX_CELLS_OF_ALL_SPLITS = 10_000
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
    n_splits: int
    seed: int

    def splits(self) -> Iterator[Split]:
        """Divide the held-out cells, one time after the other; without a ceiling they stay whole, once."""
        if CEILING in self.systems:
            for number in range(self.n_splits):
                yield take_split(self.held_out, self.systems, self.n_cells, number, self.seed)
            return
        sides = {
            name: side.take(stratified_choice(side.cells.labels, self.n_cells, numpy_rng(self.seed, name)))
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
    n_splits: int | None,
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
    n_splits = default_splits(cells.n_cells) if n_splits is None else n_splits
    return Placed(tuple(METRICS.values()), fitted, held_out, systems, cells.n_cells, n_splits, seed)


def default_splits(n_cells: int) -> int:
    """Choose how many splits to average over."""
    return int(np.clip(MAX_CELLS_OF_ALL_SPLITS // n_cells, 1, MAX_SPLITS))


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
    return Placed(metrics, fitted, held_out, systems, cells.n_cells, n_splits=1, seed=seed)


def _in_order(cells: PreparedCells, generators: Sequence[str], fitted: dict[str, Cells]) -> dict[str, Cells]:
    """Put the systems in the order of the report: generators, fitted baselines, given baselines, memoriser."""
    systems = {name: cells.generated[name] for name in generators} | fitted | cells.generated
    return systems if cells.train is None else {**systems, MEMORISER: cells.train}


def fit_spaces(fitting: Cells, model: Any, seed: int) -> dict[str, Space]:
    """Fit the spaces in which distances are measured; the latent one only with a model, as in `evaluate`."""
    spaces: dict[str, Space] = {
        PRIMARY_SPACE: FeatureSpace.fit(fitting.log1p_cp10k, seed=seed),
        "hvg": VariableGeneSpace.fit(fitting, seed=seed),
    }
    if model is not None:
        spaces[LATENT_SPACE] = LatentSpace.fit(model, fitting)
    return spaces


def place(cells: Cells, spaces: Mapping[str, Space], purpose: str, seed: int, n_resamples: int) -> Side:
    """Place all cells of a system in every space and draw their bootstrap weights, once for all metrics and splits.

    The purpose says whose cells they are; systems are resampled independently.
    """
    weights = draw_weights(len(cells), numpy_rng(seed, f"weights of {purpose}"), n_resamples)
    return Side(cells, {name: space.transform(cells) for name, space in spaces.items()}, weights)


def fit(spaces: Mapping[str, Space], fitting: Side, training: Side | None, conditions: Sequence[str]) -> Fitted:
    """Train label classifiers on the cells that the spaces were fitted on; none for fewer than two labels."""
    features, labels = fitting.features[PRIMARY_SPACE], fitting.cells.labels
    trained = {c: LabelClassifier.fit(features, labels[c].to_numpy(dtype=object)) for c in conditions}
    return Fitted(spaces, {c: one for c, one in trained.items() if one is not None}, fitting, training)


def fit_baselines(fitting: Cells, n_cells: int, seed: int) -> dict[str, Cells]:
    """Generate cells from every baseline, with labels and depths of the cells that it was fitted on."""
    joint = joint_labels(fitting.labels)
    systems = {}
    for name, baseline in BASELINES.items():
        counts, donors = baseline.fit(fitting.counts, joint).sample(n_cells, numpy_rng(seed, name))
        systems[name] = Cells(counts, fitting.genes, fitting.labels.iloc[donors].reset_index(drop=True))
    return systems

"""Fit what is the same for all systems: spaces, label classifiers and baselines; and place cells in the spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scldm.evaluation.baselines import BASELINES, joint_labels
from scldm.evaluation.bootstrap import draw_weights
from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Fitted, Side
from scldm.evaluation.draws import rng_for
from scldm.evaluation.labels import LabelClassifier
from scldm.evaluation.records import LATENT_SPACE, PRIMARY_SPACE
from scldm.evaluation.spaces import FeatureSpace, LatentSpace, Space, VariableGeneSpace

__all__ = ["fit", "fit_baselines", "fit_spaces", "place"]


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
    weights = draw_weights(len(cells), rng_for(seed, f"weights of {purpose}"), n_resamples)
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
        counts, donors = baseline.fit(fitting.counts, joint).sample(n_cells, rng_for(seed, name))
        systems[name] = Cells(counts, fitting.genes, fitting.labels.iloc[donors].reset_index(drop=True))
    return systems

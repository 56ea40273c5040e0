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
    """Fit the spaces in which distances are measured; the latent one only with a model.

    Parameters
    ----------
    fitting
        Cells with the judged genes.
    model
        Anything with ``get_latent_representation(adata)``, or None.
    seed
        Of the iterative solvers.
    """
    spaces: dict[str, Space] = {
        PRIMARY_SPACE: FeatureSpace.fit(fitting.log1p_cp10k, seed=seed),
        "hvg": VariableGeneSpace.fit(fitting, seed=seed),
    }
    if model is not None:
        spaces[LATENT_SPACE] = LatentSpace.fit(model, fitting)
    return spaces


def place(cells: Cells, spaces: Mapping[str, Space], purpose: str, seed: int, n_resamples: int) -> Side:
    """Place cells in every space and draw their bootstrap weights, once for all metrics and splits.

    Parameters
    ----------
    cells
        All cells of a system, with the judged genes.
    spaces
        From `fit_spaces`.
    purpose
        Whose cells they are; systems are resampled independently.
    seed, n_resamples
        Of the weights.
    """
    weights = draw_weights(len(cells), rng_for(seed, f"weights of {purpose}"), n_resamples)
    return Side(cells, {name: space.transform(cells) for name, space in spaces.items()}, weights)


def fit(spaces: Mapping[str, Space], fitting: Side, training: Side | None, conditions: Sequence[str]) -> Fitted:
    """Train the label classifiers.

    Parameters
    ----------
    spaces
        From `fit_spaces`.
    fitting
        The cells that the spaces were fitted on.
    training
        All training cells, if any were given.
    conditions
        The judged obs columns; one with fewer than two labels gets no classifier.
    """
    features, labels = fitting.features[PRIMARY_SPACE], fitting.cells.labels
    trained = {c: LabelClassifier.fit(features, labels[c].to_numpy(dtype=object)) for c in conditions}
    return Fitted(spaces, {c: one for c, one in trained.items() if one is not None}, fitting, training)


def fit_baselines(fitting: Cells, n_cells: int, seed: int) -> dict[str, Cells]:
    """Generate cells from every baseline, with labels and depths of the cells that it was fitted on.

    Parameters
    ----------
    fitting
        Cells with the judged genes.
    n_cells
        How many to generate.
    seed
        Of the generation.
    """
    joint = joint_labels(fitting.labels)
    systems = {}
    for name, baseline in BASELINES.items():
        counts, donors = baseline.fit(fitting.counts, joint).sample(n_cells, rng_for(seed, name))
        systems[name] = Cells(counts, fitting.genes, fitting.labels.iloc[donors].reset_index(drop=True))
    return systems

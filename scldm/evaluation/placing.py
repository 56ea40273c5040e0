"""Fit what is the same for all systems, and place every system in it: the standard profile and the published one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scldm.evaluation.baselines import BASELINES
from scldm.evaluation.cells import Cells
from scldm.evaluation.compare import Fitted, Side
from scldm.evaluation.labels import fit_classifier, joint_labels
from scldm.evaluation.material import Material
from scldm.evaluation.records import LATENT_SPACE, PRIMARY_SPACE
from scldm.evaluation.spaces import FeatureSpace, LatentSpace, Space, VariableGeneSpace
from scldm.evaluation.systems import CEILING, MEMORISER
from scldm.seeds import numpy_rng

__all__ = ["fit", "fit_baselines", "fit_spaces", "place", "place_all"]

MAX_BASELINE_CELLS = 5000


def place_all(
    cells: Material,
    generators: Sequence[str],
    conditions: Sequence[str],
    *,
    model: Any,
    halves: bool,
    seed: int,
) -> tuple[Fitted, Side, dict[str, Side]]:
    """Place the held-out cells and every system in spaces that are fitted on other real cells; see `evaluate`.

    Without `halves` there is one space, fitted on all real cells, and no ceiling. Systems are in the order of the
    report: ceiling, generators, fitted baselines, given baselines, memoriser.

    Returns
    -------
    What was fitted, the held-out cells, and the systems by name.
    """
    if halves:
        spaces = fit_spaces(cells.fitting, model, seed)
        n_baseline = max(cells.n_cells, min(len(cells.held_out), MAX_BASELINE_CELLS))
        baselines = fit_baselines(cells.fitting, n_baseline, seed)
    else:
        spaces = {PRIMARY_SPACE: FeatureSpace.fit(cells.held_out.log1p_cp10k, seed=seed)}
        baselines = {} if cells.train is None else fit_baselines(cells.train, cells.n_cells, seed)
    everyone = {name: cells.generated[name] for name in generators} | baselines | cells.generated
    if cells.train is not None:
        everyone[MEMORISER] = cells.train

    held_out = place(cells.held_out, spaces)
    systems = {CEILING: held_out} if halves else {}
    systems |= {name: place(own, spaces) for name, own in everyone.items()}
    training = systems.get(MEMORISER)
    if not halves:
        fitting = held_out
    elif training is not None and cells.fitting_rows is not None:
        fitting = training.take(cells.fitting_rows)
    else:
        fitting = place(cells.fitting, spaces)
    return fit(spaces, fitting, training, conditions), held_out, systems


def fit_spaces(fitting: Cells, model: Any, seed: int) -> dict[str, Space]:
    """Fit the spaces in which distances are measured; the latent one only with a model, as in `evaluate`."""
    spaces: dict[str, Space] = {
        PRIMARY_SPACE: FeatureSpace.fit(fitting.log1p_cp10k, seed=seed),
        "hvg": VariableGeneSpace.fit(fitting, seed=seed),
    }
    if model is not None:
        spaces[LATENT_SPACE] = LatentSpace.fit(model, fitting)
    return spaces


def place(cells: Cells, spaces: Mapping[str, Space]) -> Side:
    """Place all cells of a system in every space, once for all metrics and draws."""
    return Side(cells, {name: space.transform(cells) for name, space in spaces.items()})


def fit(spaces: Mapping[str, Space], fitting: Side, training: Side | None, conditions: Sequence[str]) -> Fitted:
    """Train label classifiers on the cells that the spaces were fitted on; none for fewer than two labels."""
    features, labels = fitting.features[PRIMARY_SPACE], fitting.cells.labels
    trained = {c: fit_classifier(features, labels[c].to_numpy(dtype=object)) for c in conditions}
    return Fitted(spaces, {c: one for c, one in trained.items() if one is not None}, fitting, training)


def fit_baselines(fitting: Cells, n_cells: int, seed: int) -> dict[str, Cells]:
    """Generate cells from every baseline, with labels and depths of the cells that it was fitted on."""
    joint = joint_labels(fitting.labels)
    systems = {}
    for name, baseline in BASELINES.items():
        counts, donors = baseline.fit(fitting.counts, joint).sample(n_cells, numpy_rng(seed, name))
        systems[name] = Cells(counts, fitting.genes, fitting.labels.iloc[donors].reset_index(drop=True))
    return systems

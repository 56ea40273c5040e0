"""How far are generated cells from real ones? The one function that answers, `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from anndata import AnnData

from scldm.errors import UserError, nearest_names
from scldm.evaluation import figures  # noqa: F401  (registers the figures of merit)
from scldm.evaluation.baselines import BASELINES
from scldm.evaluation.cells import Cells
from scldm.evaluation.distances import EXACT_TRANSPORT_CELLS
from scldm.evaluation.exhibits import Exhibits
from scldm.evaluation.findings import find
from scldm.evaluation.judge import bring, fit_baselines, fit_judge, fit_spaces
from scldm.evaluation.labels import label_fidelity
from scldm.evaluation.material import MIN_CELLS, Material, gather
from scldm.evaluation.published import MAX_CELLS as MAX_PUBLISHED_CELLS
from scldm.evaluation.published import NOTE, score_published
from scldm.evaluation.registry import FIGURES
from scldm.evaluation.report import EvaluationReport
from scldm.evaluation.resampling import N_RESAMPLES
from scldm.evaluation.scoring import score, split_sides

__all__ = ["RESERVED_NAMES", "Profile", "evaluate"]

Profile = Literal["standard", "published"]

MEANINGS = {
    "ceiling": "held-out real cells, the half that is not the reference: the best that a generator can do",
    "memoriser": "training cells: what a generator that copies them would score",
    **{name: f"baseline: {baseline.description}" for name, baseline in BASELINES.items()},
}
#: What a judged generator or a given baseline cannot be called.
RESERVED_NAMES = (*MEANINGS, "reference", "real")
MIN_RESAMPLES = 20
MAX_BASELINE_CELLS = 5000
# Averaging over splits takes out the luck of one division, which matters where cells are few, and is cheap there.
MAX_SPLITS = 5
MAX_CELLS_OF_ALL_SPLITS = 10_000


def evaluate(
    real: AnnData,
    generated: AnnData | Mapping[str, AnnData],
    *,
    train: AnnData | None = None,
    baselines: Mapping[str, AnnData] | None = None,
    conditions: Sequence[str] = (),
    layer: str | None = None,
    model: Any = None,
    profile: str = "standard",
    seed: int = 0,
    max_cells: int = 5000,
    n_splits: int | None = None,
    n_resamples: int = N_RESAMPLES,
) -> EvaluationReport:
    """Compare generated cells, from any generator, with held-out real cells, beside a ceiling and baselines.

    The real cells are split into two halves, A and B. **B is the reference** of every comparison. Several systems are
    compared with it, all with as many cells as the reference, since most distances depend on the number of cells:

    - ``ceiling``: half A; no generator can be better than real cells, except by luck;
    - ``generated``, or the names that are given: a random subsample of the generated cells;
    - ``independent_nb``, ``pca_gaussian``: baselines fitted on training cells, with their labels and depths;
    - `baselines`, if any are given;
    - ``memoriser``: a random subsample of the training cells (only with `train`).

    Subsamples keep each system's own shares of the labels of the first condition. Values are averaged over several
    random splits. Intervals come from a bootstrap over cells: the same resamples for all figures. Figures that do not
    depend on the number of cells take all held-out cells and all cells of a system instead.

    The feature spaces, the genes (seen in 3 training cells), the label classifiers and the baselines are fitted on the
    training cells. Without `train` the real cells are split into *three* parts and these are fitted on the third: cells
    look unlike those that a space was fitted on, so a half that was used for fitting would not be a ceiling.

    Parameters
    ----------
    real
        Held-out real cells with raw counts, which the generator has not seen.
    generated
        Generated cells with raw counts, or those of several generators by name; the first is the one that matters.
        Genes are aligned by name; their order does not matter.
    train
        The cells that the generator was trained on.
    baselines
        Cells of further generators to beat, by name, such as those of scVI: compared, not judged. They are read like
        `generated`.
    conditions
        Columns of ``obs`` with labels. The first also stratifies the splits.
    layer
        Layer with the counts of `real` and `train`; None is ``X``. `generated` is read from it too if it has it, else
        from ``X``.
    model
        Adds the latent space of a model: anything with ``get_latent_representation(adata)``, such as `scldm.ScLDM`.
    profile
        ``published`` computes only the figures of published tables, by their recipe: no halves, no ceiling.
    seed
        Of the splits, the subsamples, the baselines and the bootstrap.
    max_cells
        Compare at most this many cells; exact optimal transport takes about ten seconds per system and split at 5,000.
        The profile ``published`` never takes more than 5,000.
    n_splits
        How many splits; None takes up to 5, while splits x cells stay within 10,000.
    n_resamples
        Of the bootstrap.

    Returns
    -------
    EvaluationReport

    Raises
    ------
    UserError
        If counts are not raw counts, an obs column is missing, the files share too few genes, there are too few
        cells, a generator or a baseline has a reserved name or that of another one, or a number is out of range.
    """
    _check(seed, max_cells, n_splits, n_resamples, profile, model)
    named = _named(generated)
    given = _named_baselines(baselines or {}, named)
    conditions = tuple(dict.fromkeys(conditions))
    halves = profile == "standard"
    if not halves:
        max_cells = min(max_cells, MAX_PUBLISHED_CELLS)
    material = gather(
        real, named | given, train, conditions=conditions, layer=layer, halves=halves, seed=seed, max_cells=max_cells
    )
    if halves:
        return _standard(material, tuple(named), conditions, model, seed, n_splits, n_resamples)
    return _published(material, tuple(named), conditions, seed, n_resamples)


def _standard(
    material: Material,
    generators: tuple[str, ...],
    conditions: tuple[str, ...],
    model: Any,
    seed: int,
    n_splits: int | None,
    n_resamples: int,
) -> EvaluationReport:
    """Compare every system with halves of the held-out cells."""
    n_cells = material.n_cells
    if n_splits is None:
        n_splits = _default_splits(n_cells)
    spaces = fit_spaces(material.fitting, model, seed)
    n_baseline = max(n_cells, min(len(material.held_out), MAX_BASELINE_CELLS))
    cells = _in_order(material, generators, fit_baselines(material.fitting, n_baseline, seed))
    held_out = bring(material.held_out, spaces, "the held-out cells", seed, n_resamples)
    systems = {"ceiling": held_out, **{k: bring(v, spaces, k, seed, n_resamples) for k, v in cells.items()}}
    training = systems.get("memoriser")
    if training is not None and material.fitting_rows is not None:
        fitting = training.take(material.fitting_rows)
    else:
        fitting = bring(material.fitting, spaces, "the fitting cells", seed, n_resamples)
    judge = fit_judge(spaces, fitting, training, conditions)

    splits = split_sides(held_out, systems, n_cells, n_splits, seed)
    rows = score(FIGURES.values(), judge, splits, held_out, systems, conditions)
    labels = label_fidelity(judge, held_out, {name: systems[name] for name in generators}, conditions)
    meanings = _meanings(systems, generators)
    notes = material.notes
    if n_cells > EXACT_TRANSPORT_CELLS:
        notes.append(
            f"wasserstein2 is of {EXACT_TRANSPORT_CELLS} of the {n_cells} cells on either side; sliced_wasserstein2 is "
            "of all."
        )
    return EvaluationReport(
        figures=rows,
        systems=meanings,
        generators=generators,
        labels=labels,
        findings=find(rows, labels, generators, meanings, n_cells=n_cells),
        n_cells=n_cells,
        n_splits=n_splits,
        n_resamples=n_resamples,
        spaces={name: space.description for name, space in spaces.items()},
        genes=material.genes,
        conditions=conditions,
        seed=seed,
        profile="standard",
        notes=tuple(notes),
        exhibits=Exhibits({"reference": splits[0].reference, **splits[0].systems}, judge, _first(conditions)),
    )


def _published(
    material: Material, generators: tuple[str, ...], conditions: tuple[str, ...], seed: int, n_resamples: int
) -> EvaluationReport:
    """Compare every system with all real cells, by the recipe of published tables."""
    fitted = {} if material.train is None else fit_baselines(material.train, material.n_cells, seed)
    cells = _in_order(material, generators, fitted)
    rows, judge, one = score_published(material.held_out, cells, material.n_cells, seed, n_resamples, conditions)
    return EvaluationReport(
        figures=rows,
        systems=_meanings(cells, generators),
        generators=generators,
        labels=(),
        findings=(),
        n_cells=material.n_cells,
        n_splits=1,
        n_resamples=n_resamples,
        spaces={name: space.description for name, space in judge.spaces.items()},
        genes=material.genes,
        conditions=conditions,
        seed=seed,
        profile="published",
        notes=(NOTE, *material.notes),
        exhibits=Exhibits({"reference": one.reference, **one.systems}, judge, _first(conditions)),
    )


def _default_splits(n_cells: int) -> int:
    """Choose how many splits to average over."""
    return int(np.clip(MAX_CELLS_OF_ALL_SPLITS // n_cells, 1, MAX_SPLITS))


def _in_order(material: Material, generators: Sequence[str], fitted: dict[str, Cells]) -> dict[str, Cells]:
    """Put the systems in the order of the report: generators, fitted baselines, given baselines, memoriser."""
    cells = {name: material.generated[name] for name in generators} | fitted | material.generated
    return cells if material.train is None else {**cells, "memoriser": material.train}


def _meanings(systems: Iterable[str], generators: Sequence[str]) -> dict[str, str]:
    """Say what every system is."""
    meanings = MEANINGS | {name: f"the cells of the generator '{name}'" for name in generators}
    if "generated" in generators:
        meanings["generated"] = "the generated cells"
    return {name: meanings.get(name, f"baseline: the cells of the generator '{name}'") for name in systems}


def _first(conditions: Sequence[str]) -> str | None:
    """Give the condition that cells are grouped by."""
    return conditions[0] if conditions else None


def _named(generated: AnnData | Mapping[str, AnnData]) -> dict[str, AnnData]:
    """Give every generator's cells a name, and refuse names that stand for something else."""
    if not isinstance(generated, Mapping):
        return {"generated": generated}
    if not generated:
        raise UserError("There are no generated cells: at least one generator is needed")
    _check_names(generated, "generator")
    return dict(generated)


def _named_baselines(baselines: Mapping[str, AnnData], generated: Mapping[str, AnnData]) -> dict[str, AnnData]:
    """Refuse names of baselines that stand for something else."""
    _check_names(baselines, "baseline")
    if both := [name for name in baselines if name in generated]:
        raise UserError(f"A baseline cannot be called '{both[0]}', which is the name of a generator")
    return dict(baselines)


def _check_names(named: Mapping[str, AnnData], kind: str) -> None:
    """Refuse names that are no text or that stand for something else in the report."""
    for name in named:
        if not isinstance(name, str) or not name.strip() or "[" in name:
            raise UserError(f"A {kind} cannot be called {name!r}; a name is text without '['")
        if name in RESERVED_NAMES:
            raise UserError(f"A {kind} cannot be called '{name}', which stands for something else in the report")


def _check(seed: int, max_cells: int, n_splits: int | None, n_resamples: int, profile: str, model: Any) -> None:
    """Refuse numbers that are out of range and what a profile cannot take, before any cell is read."""
    if seed < 0:
        raise UserError(f"The seed is {seed}; it must not be negative")
    if seed >= 2**32:
        raise UserError(f"The seed is {seed}; it must be below 2^32")
    if max_cells < MIN_CELLS:
        raise UserError(f"At most {max_cells} cells are to be compared; at least {MIN_CELLS} are needed")
    if n_splits is not None and n_splits < 1:
        raise UserError(f"The number of splits is {n_splits}; at least 1 is needed")
    if n_resamples < MIN_RESAMPLES:
        raise UserError(f"The number of bootstrap resamples is {n_resamples}; at least {MIN_RESAMPLES} are needed")
    if profile not in get_args(Profile):
        raise UserError(f"There is no profile '{profile}'; {nearest_names(profile, get_args(Profile))}")
    if profile == "published" and (model is not None or n_splits not in (None, 1)):
        raise UserError("The profile 'published' has one space and one split: it takes neither a model nor n_splits")

"""How far are generated cells from real ones? The one function that answers, `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from anndata import AnnData

from scldm.errors import UserError
from scldm.evaluation import figures  # noqa: F401  (registers the figures of merit)
from scldm.evaluation.baselines import IndependentNegativeBinomial
from scldm.evaluation.cells import Cells, read_cells
from scldm.evaluation.genes import N_CORRELATED_GENES
from scldm.evaluation.labels import LabelClassifier
from scldm.evaluation.pictures import Portrait
from scldm.evaluation.preparation import choose_genes, generator, repeated_cells, split, subsample
from scldm.evaluation.registry import FIGURES, Comparison, Judge
from scldm.evaluation.report import EvaluationReport, FigureValues
from scldm.evaluation.space import FeatureSpace

__all__ = ["evaluate"]

SYSTEMS = {
    "ceiling": "held-out real cells, the half that is not the reference: the best that a generator can do",
    "generated": "the generated cells",
    "independent_nb": "baseline: an independent negative binomial per gene and joint label, fitted on training cells",
    "memoriser": "training cells: what a generator that copies them would score",
}
MIN_CELLS = 10
MAX_FITTING_CELLS = 20_000


def evaluate(
    real: AnnData,
    generated: AnnData,
    *,
    train: AnnData | None = None,
    conditions: Sequence[str] = (),
    layer: str | None = None,
    seed: int = 0,
    max_cells: int = 5000,
) -> EvaluationReport:
    """Compare generated cells, from any generator, with held-out real cells, beside a ceiling and baselines.

    The real cells are split into two halves, A and B. **B is the reference** of every comparison. Four systems are
    compared with it, all with as many cells as the reference, since most distances depend on the number of cells:

    - ``ceiling``: half A; no generator can be better than real cells, except by luck;
    - ``generated``: a random subsample of the generated cells;
    - ``independent_nb``: an independent negative binomial per gene and joint label, with labels and depths of
      training cells;
    - ``memoriser``: a random subsample of the training cells (only with `train`).

    The feature space (PCA-30 of log1p CP10K), the genes (seen in 3 training cells), the label classifiers and the
    baseline are fitted on the training cells. Without `train` the real cells are split into *three* parts and these are
    fitted on the third: cells look unlike those that a space was fitted on, so a half that was used for fitting would
    not be a ceiling.

    Parameters
    ----------
    real
        Held-out real cells with raw counts, which the generator has not seen.
    generated
        Generated cells with raw counts. Genes are aligned by name; their order does not matter.
    train
        The cells that the generator was trained on.
    conditions
        Columns of ``obs`` with labels. The first also stratifies the split.
    layer
        Layer with the counts of `real` and `train`; None is ``X``. `generated` is read from it too if it has it, else
        from ``X``.
    seed
        Of the split, the subsamples and the baseline.
    max_cells
        Compare at most this many cells; exact optimal transport takes about ten seconds per system at 5,000.

    Returns
    -------
    EvaluationReport

    Raises
    ------
    UserError
        If counts are not raw counts, an obs column is missing, the files share too few genes, or there are too few
        cells.
    """
    if seed < 0:
        raise UserError(f"The seed is {seed}; it must not be negative")
    if seed >= 2**32:
        raise UserError(f"The seed is {seed}; it must be below 2^32")
    if max_cells < MIN_CELLS:
        raise UserError(f"At most {max_cells} cells are to be compared; at least {MIN_CELLS} are needed")
    conditions = tuple(dict.fromkeys(conditions))
    real_cells = read_cells(real, "the real cells", layer, conditions, optional=False)
    generated_cells = read_cells(generated, "the generated cells", layer, conditions, optional=True)
    train_cells = None if train is None else read_cells(train, "the training cells", layer, conditions, optional=False)

    parts = split(real_cells.labels, 3 if train_cells is None else 2, generator(seed, "split"))
    fitting = real_cells.take(parts[2]) if train_cells is None else train_cells
    fitting = subsample(fitting, MAX_FITTING_CELLS, generator(seed, "fitting"))
    genes, overlap = choose_genes(real_cells, generated_cells, train_cells, fitting)
    fitting = fitting.with_genes(genes)
    judge = _fit_judge(fitting, conditions, seed)

    sources = {"ceiling": real_cells.take(parts[0]), "generated": generated_cells}
    if train_cells is not None:
        sources["memoriser"] = train_cells
    reference = real_cells.take(parts[1])
    n_cells = min(max_cells, len(reference), len(fitting), *map(len, sources.values()))
    if n_cells < MIN_CELLS:
        raise UserError(f"Only {n_cells} cells could be compared with as many others; at least {MIN_CELLS} are needed")
    systems = {k: subsample(cells, n_cells, generator(seed, k)).with_genes(genes) for k, cells in sources.items()}
    systems["reference"] = subsample(reference, n_cells, generator(seed, "reference")).with_genes(genes)
    systems["independent_nb"] = _baseline(fitting, n_cells, generator(seed, "independent_nb"))
    portraits = {k: Portrait(cells, judge.space.transform(cells.log1p_cp10k)) for k, cells in systems.items()}

    notes = _notes(real_cells, generated_cells, train_cells, fitting, judge)
    if train is not None and train_cells is not None:
        aligned = real_cells.with_genes(genes), train_cells.with_genes(genes)
        if n_repeated := repeated_cells(real.obs_names, aligned[0], train.obs_names, aligned[1]):
            notes.append(f"WARNING: {n_repeated} of the {real.n_obs} held-out real cells are training cells as well.")
    return EvaluationReport(
        figures=_compute(judge, portraits, conditions),
        systems={name: meaning for name, meaning in SYSTEMS.items() if name in systems},
        n_cells=n_cells,
        n_features=len(judge.space.components),
        genes=overlap,
        conditions=conditions,
        seed=seed,
        notes=tuple(notes),
        portraits=portraits,
    )


def _fit_judge(fitting: Cells, conditions: Sequence[str], seed: int) -> Judge:
    """Fit what is the same for all systems: the feature space, the abundant genes and the classifiers."""
    space = FeatureSpace.fit(fitting.log1p_cp10k, seed=seed)
    features = space.transform(fitting.log1p_cp10k)
    classifiers = {c: LabelClassifier.fit(features, fitting.labels[c].to_numpy(dtype=object)) for c in conditions}
    by_abundance = np.argsort(-fitting.gene_means, kind="stable")
    return Judge(
        space=space,
        correlated_genes=by_abundance[:N_CORRELATED_GENES],
        classifiers={c: classifier for c, classifier in classifiers.items() if classifier is not None},
    )


def _baseline(fitting: Cells, n_cells: int, rng: np.random.Generator) -> Cells:
    """Generate cells from independent negative binomials, one per combination of labels."""
    joint_label: np.ndarray = np.zeros(len(fitting), dtype=np.int64)
    if len(fitting.labels.columns):
        grouped = fitting.labels.groupby(list(fitting.labels.columns), dropna=False)
        joint_label = grouped.ngroup().to_numpy(dtype=np.int64)
    counts, donors = IndependentNegativeBinomial.fit(fitting.counts, joint_label).sample(n_cells, rng)
    return Cells(counts, fitting.genes, fitting.labels.iloc[donors].reset_index(drop=True))


def _compute(judge: Judge, portraits: Mapping[str, Portrait], conditions: Sequence[str]) -> tuple[FigureValues, ...]:
    """Compute every registered figure for every system."""
    reference = portraits["reference"]
    comparisons = {
        name: Comparison(judge, reference.cells, portraits[name].cells, reference.features, portraits[name].features)
        for name in SYSTEMS
        if name in portraits
    }
    rows = []
    for figure in FIGURES.values():
        for arguments in [(condition,) for condition in conditions] if figure.per_condition else [()]:
            name = f"{figure.name}[{arguments[0]}]" if arguments else figure.name
            values = {system: figure.compute(comparison, *arguments) for system, comparison in comparisons.items()}
            rows.append(FigureValues(name, figure.direction, figure.description, values))
    return tuple(rows)


def _notes(real: Cells, generated: Cells, train: Cells | None, fitting: Cells, judge: Judge) -> list[str]:
    """Say what a reader must know about how the figures came about."""
    notes = []
    if train is None:
        notes.append(
            "No training cells were given: the space, the classifiers and the baseline are fitted on a third of the "
            "real cells; the ceiling and the reference are the other two thirds."
        )
    elif len(fitting) < len(train):
        notes.append(f"Space, classifiers and baseline are fitted on {len(fitting)} of {len(train)} training cells.")
    for condition in fitting.labels:
        known = set(fitting.labels[condition])
        if condition not in generated.labels:
            notes.append(f"The generated cells have no obs column '{condition}': their labels could not be judged.")
        elif strange := sorted(set(generated.labels[condition].dropna()) - known):
            notes.append(
                f"WARNING: the generated cells have {len(strange)} labels of '{condition}' that the fitting cells do "
                f"not have, such as '{strange[0]}'; cells with them count as not recognised."
            )
        if condition not in judge.classifiers:
            notes.append(f"'{condition}' has fewer than two labels: there is nothing to tell apart.")
    return notes

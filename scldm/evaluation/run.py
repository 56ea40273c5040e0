"""How far are generated cells from real ones? The one function that answers, `evaluate`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from anndata import AnnData

from scldm.errors import UserError, nearest_names
from scldm.evaluation.baselines import BASELINES
from scldm.evaluation.drawn import DrawnCells
from scldm.evaluation.findings import find
from scldm.evaluation.material import MIN_CELLS, Material, gather
from scldm.evaluation.metrics import METRICS, transport
from scldm.evaluation.metrics.kernels import MMD2_PUBLISHED
from scldm.evaluation.metrics.labels import label_fidelity
from scldm.evaluation.metrics.transport import WASSERSTEIN2_PUBLISHED
from scldm.evaluation.null import MIN_PERMUTATIONS
from scldm.evaluation.placing import place_all
from scldm.evaluation.records import rows_of
from scldm.evaluation.report import EvaluationReport
from scldm.evaluation.scoring import Plan, score, score_once
from scldm.evaluation.systems import CEILING, MEMORISER, REFERENCE, Systems

__all__ = ["RESERVED_NAMES", "evaluate"]

Profile = Literal["standard", "published"]

MEANINGS = {
    CEILING: "held-out real cells, the half that is not the reference: the best that a generator can do",
    MEMORISER: "training cells: what a generator that copies them would score",
    **{name: f"baseline: {baseline.description}" for name, baseline in BASELINES.items()},
}
#: What a judged generator or a given baseline cannot be called.
RESERVED_NAMES = (*MEANINGS, REFERENCE, "real")
#: Averaging over many takes out the luck of one division: the Fréchet distance of one half to the other varies by a
#: quarter between halvings.
N_HALVINGS = 20
#: The limit of what real cells score is then known to within what one cell in forty would make of it.
N_PERMUTATIONS = 99
MAX_PUBLISHED_CELLS = 5000
PUBLISHED_NOTE = (
    "Profile 'published', the recipe of published tables: 30 principal components of log1p CP10K, fitted on all real "
    f"cells; at most {MAX_PUBLISHED_CELLS:,} of them, not divided in halves, are the reference. There is no ceiling: a "
    "part of every distance comes from the limited number of cells, so compare with numbers at equal n only."
)
PUBLISHED_METRICS = (
    WASSERSTEIN2_PUBLISHED,
    MMD2_PUBLISHED,
    METRICS["frechet_distance"],
    METRICS["nearest_neighbour_accuracy"],
)


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
    n_halvings: int = N_HALVINGS,
    n_permutations: int = N_PERMUTATIONS,
    paired: Collection[str] = (),
    group_by: str | None = None,
) -> EvaluationReport:
    """Compare generated cells, from any generator, with held-out real cells, beside a ceiling and baselines.

    The real cells are split into two halves, A and B. **B is the reference** of every comparison. Several systems are
    compared with it, all with as many cells as the reference, since most distances depend on the number of cells:

    - ``ceiling``: half A; no generator can be better than real cells, except by luck;
    - ``generated``, or the names that are given: a random subsample of the generated cells;
    - ``independent_nb``, ``pca_gaussian``: baselines fitted on training cells, with their labels and depths;
    - `baselines`, if any are given;
    - ``memoriser``: a random subsample of the training cells (only with `train`).

    Subsamples keep each system's own shares of the labels. Values are means over many halvings, the same ones for every
    system.

    What real cells would score in the place of a generator is found by permutation: were its cells real, they and the
    held-out ones could be exchanged, so they are put into one pool and dealt anew, many times, and the difference
    (generator - ceiling) is computed each time. A generator is called worse than real cells where its own difference is
    beyond those in 95 % of permutations. For real cells that happens in 5 % of evaluations, with every metric. Where
    its labels are as frequent as those of the held-out cells, cells are exchanged within labels only.

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
        ``published`` computes only the metrics of published tables, by their recipe: no halves, no ceiling.
    seed
        Of everything that is drawn: halves, subsamples, permutations, baselines, and inside of metrics.
    max_cells
        Compare at most this many cells. The profile ``published`` never takes more than 5,000.
    n_halvings
        How many halvings to average over; metrics that take long take fewer.
    n_permutations
        How often to permute for every judged generator, at least 39; metrics that take long are not permuted more often
        than that.
    paired
        Generators whose cell i was made from real cell i, such as by encoding and decoding it. They are compared as
        the counterparts of half A, and permuted by swapping cells with their counterparts.
    group_by
        Column of ``obs`` with groups of real cells, such as donors, of which the generator is not expected to have met
        the held-out ones. Halves keep groups whole, so that the ceiling is cells of *other* groups, and the generator
        is held against how one half scores beside the other.

    Returns
    -------
    EvaluationReport

    Raises
    ------
    UserError
        If counts are not raw counts, an obs column is missing, the files share too few genes, there are too few
        cells, a generator or a baseline has a reserved name or that of another one, or a number is out of range.
    """
    _check(seed, max_cells, n_halvings, n_permutations, profile, model)
    named = dict(generated) if isinstance(generated, Mapping) else {"generated": generated}
    given = dict(baselines or {})
    _check_names(named, given, paired)
    conditions = tuple(dict.fromkeys(conditions))
    halves = profile == "standard"
    cells = gather(
        real,
        named | given,
        train,
        conditions=conditions,
        layer=layer,
        halves=halves,
        seed=seed,
        max_cells=max_cells if halves else min(max_cells, MAX_PUBLISHED_CELLS),
        paired=paired if halves else (),
        group_by=group_by if halves else None,
    )
    generators = tuple(named)
    fitted, held_out, sides = place_all(cells, generators, conditions, model=model, halves=halves, seed=seed)
    computed = tuple(METRICS.values()) if halves else PUBLISHED_METRICS
    if halves:
        plan = Plan(cells.n_cells, n_halvings, n_permutations, seed, generators, cells.paired, cells.groups)
        scores = score(computed, fitted, held_out, sides, conditions, plan)
    else:
        n_halvings, n_permutations = 1, 0
        scores = score_once(computed, fitted, held_out, sides, cells.n_cells, seed)
    infos = {metric.info.name: metric.info for metric in computed}
    metrics = {record.metric: infos[record.metric] for record in scores.records}
    systems = Systems.of(_meanings(sides, generators), generators)
    judged = {name: sides[name] for name in generators}
    labels = label_fidelity(fitted, held_out, judged, conditions) if halves else ()
    drawn = {REFERENCE: scores.reference, **scores.drawn}
    rows = rows_of(scores.records, metrics)
    found = find(rows, labels, systems, scores.multiplicity, n_cells=cells.n_cells) if halves else ()
    return EvaluationReport(
        records=scores.records,
        metrics=metrics,
        systems=systems,
        labels=labels,
        findings=found,
        multiplicity=scores.multiplicity,
        n_cells=cells.n_cells,
        n_halvings=n_halvings,
        n_permutations=n_permutations,
        spaces={name: space.description for name, space in fitted.spaces.items()},
        genes=cells.genes,
        conditions=conditions,
        seed=seed,
        profile=profile,
        notes=_notes(cells, halves, group_by),
        drawn=DrawnCells.of(drawn, systems, fitted, next(iter(conditions), None)),
    )


def _notes(cells: Material, halves: bool, group_by: str | None) -> tuple[str, ...]:
    """Say what a reader must know about how the numbers came about."""
    if not halves:
        return (PUBLISHED_NOTE, *cells.notes)
    notes = list(cells.notes)
    if group_by is not None:
        notes.append(
            f"Halves of the real cells keep every '{group_by}' whole: the ceiling is cells of others, and so is what a "
            "generator is held against."
        )
    if cells.n_cells > transport.EXACT_TRANSPORT_CELLS:
        notes.append(
            f"wasserstein2 is of {transport.EXACT_TRANSPORT_CELLS} of the {cells.n_cells} cells on either side; "
            "sliced_wasserstein2 is of all."
        )
    return tuple(notes)


def _meanings(systems: Iterable[str], generators: Sequence[str]) -> dict[str, str]:
    meanings = MEANINGS | {name: f"the cells of the generator '{name}'" for name in generators}
    if "generated" in generators:
        meanings["generated"] = "the generated cells"
    return {name: meanings.get(name, f"baseline: the cells of the generator '{name}'") for name in systems}


def _check_names(generators: Mapping[str, AnnData], baselines: Mapping[str, AnnData], paired: Collection[str]) -> None:
    """Refuse names that are no text, or that stand for something else in the report."""
    if not generators:
        raise UserError("There are no generated cells: at least one generator is needed")
    for kind, names in (("generator", generators), ("baseline", baselines)):
        for name in names:
            if not isinstance(name, str) or not name.strip():
                raise UserError(f"A {kind} cannot be called {name!r}; a name is text")
            if name in RESERVED_NAMES:
                raise UserError(f"A {kind} cannot be called '{name}', which stands for something else in the report")
    if both := [name for name in baselines if name in generators]:
        raise UserError(f"A baseline cannot be called '{both[0]}', which is the name of a generator")
    for name in paired:
        if name not in generators:
            raise UserError(f"There is no generator '{name}' that could be paired; {nearest_names(name, generators)}")


def _check(seed: int, max_cells: int, n_halvings: int, n_permutations: int, profile: str, model: Any) -> None:
    """Refuse numbers that are out of range and what a profile cannot take, before any cell is read."""
    if seed < 0:
        raise UserError(f"The seed is {seed}; it must not be negative")
    if seed >= 2**32:
        raise UserError(f"The seed is {seed}; it must be below 2^32")
    if max_cells < MIN_CELLS:
        raise UserError(f"At most {max_cells} cells are to be compared; at least {MIN_CELLS} are needed")
    if n_halvings < 1:
        raise UserError(f"The number of halvings is {n_halvings}; at least 1 is needed")
    if n_permutations < MIN_PERMUTATIONS:
        raise UserError(
            f"The number of permutations is {n_permutations}; with fewer than {MIN_PERMUTATIONS} it cannot be said "
            "what real cells score in 95 % of cases"
        )
    if profile not in get_args(Profile):
        raise UserError(f"There is no profile '{profile}'; {nearest_names(profile, get_args(Profile))}")
    if profile == "published" and model is not None:
        raise UserError("The profile 'published' has one space: it takes no model")

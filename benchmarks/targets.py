"""What generated cells, and those of the autoencoder alone, have to reach, and whether they do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scldm.evaluation import EvaluationReport
from scldm.evaluation.baselines import BASELINES
from scldm.evaluation.verdict import at_ceiling, in_own_space, rank

__all__ = ["Target", "as_real", "check"]

OURS = "scldm"
AUTOENCODER = "autoencoder"
BASELINE_SYSTEMS = (*BASELINES, "scvi")

MAX_NEAREST_NEIGHBOUR_ACCURACY = 0.55
MAX_ACCURACY_OF_AUTOENCODER = 0.53
MAX_ACCURACY_OVER_AUTOENCODER = 0.015
MAX_MEMBERSHIP_AUROC = 0.55
MAX_LABEL_GAP = 0.03
MAX_GAP_OF_ONE_LABEL = 0.10
CELLS_OF_A_LABEL = 20
MISSING = -math.inf  # the gap of a label without any generated cell
NEAREST_TRAINING_RATIO = (0.97, 1.08)


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes
    ----------
    name
        What has to be reached.
    value
        What was reached, in words.
    met
        Whether that is enough; None where it could not be computed.
    """

    name: str
    value: str
    met: bool | None


def check(report: EvaluationReport, system: str = OURS) -> list[Target]:
    """Compare a system's metrics with the targets."""
    return [
        *_nearest_neighbours(report, system),
        *_metrics(report, system),
        *_labels(report, system),
        *_memorisation(report, system),
        *_ahead(report, system),
    ]


def _nearest_neighbours(report: EvaluationReport, system: str) -> Iterator[Target]:
    """Judge by 1-NN accuracy, the hardest of the distances; held-out cells through the autoencoder too."""
    metric = "nearest_neighbour_accuracy"
    ours = report.value(metric, system)
    yield Target(f"{metric} as of real cells", "-" if ours is None else f"{ours:.3f}", as_real(report, metric, system))
    yield _judged(
        f"{metric} at most {MAX_NEAREST_NEIGHBOUR_ACCURACY}",
        report,
        metric,
        system,
        lambda ours, _: ours <= MAX_NEAREST_NEIGHBOUR_ACCURACY,
    )
    if AUTOENCODER not in report.systems.names:
        return
    yield _judged(
        f"{metric} of the autoencoder on held-out cells at most {MAX_ACCURACY_OF_AUTOENCODER}",
        report,
        metric,
        AUTOENCODER,
        lambda limit, _: limit <= MAX_ACCURACY_OF_AUTOENCODER,
    )
    limit = report.value(metric, AUTOENCODER)
    name = f"{metric} at most {MAX_ACCURACY_OVER_AUTOENCODER} over the autoencoder's"
    if ours is None or limit is None:
        yield Target(name, "-", None)
    else:
        yield Target(name, f"{ours - limit:+.3f}", ours - limit <= MAX_ACCURACY_OVER_AUTOENCODER)


def _metrics(report: EvaluationReport, system: str) -> Iterator[Target]:
    def at_most(metric: str, factor: float) -> Target:
        return _judged(
            f"{metric} at most {factor} x ceiling",
            report,
            metric,
            system,
            lambda ours, ceiling: ours <= factor * ceiling,
        )

    yield at_most("frechet_distance", 1.3)
    yield at_most("wasserstein2", 1.03)
    for metric in ("precision", "recall"):
        name = f"{metric} within .10 of the ceiling"
        yield _judged(name, report, metric, system, lambda ours, ceiling: abs(ours - ceiling) <= 0.10)
    yield _judged(
        "gene_gene_correlation at least .97 x ceiling",
        report,
        "gene_gene_correlation",
        system,
        lambda ours, ceiling: ours >= 0.97 * ceiling,
    )
    yield at_most("zero_fraction_mae", 1.5)


def _labels(report: EvaluationReport, system: str) -> Iterator[Target]:
    for condition in report.conditions:
        yield _judged(
            f"label_agreement[{condition}] within {MAX_LABEL_GAP} of real cells",
            report,
            "label_agreement",
            system,
            lambda ours, real: abs(ours - real) <= MAX_LABEL_GAP,
            condition,
        )
        gaps = {}
        rows = [row for row in report.labels if row.condition == condition]
        # a system without any labels of this condition is not judged by them
        has_labels = any(row.n_generated.get(system) for row in rows)
        for row in rows:
            ours, real = row.agreement.get(system), row.agreement.get("real")
            if row.n_real <= CELLS_OF_A_LABEL or real is None:
                continue
            if ours is not None:
                gaps[row.label] = ours.value - real.value
            elif has_labels and not row.n_generated.get(system):
                gaps[row.label] = MISSING
        name = f"labels of {condition} with more than {CELLS_OF_A_LABEL} cells within {MAX_GAP_OF_ONE_LABEL}"
        if not gaps:
            yield Target(name, "no such label", None)
            continue
        worst = max(gaps, key=lambda label: abs(gaps[label]))
        how = "no cell was generated" if gaps[worst] == MISSING else f"{gaps[worst]:+.3f}"
        n_off = sum(abs(gap) > MAX_GAP_OF_ONE_LABEL for gap in gaps.values())
        yield Target(name, f"{n_off} of {len(gaps)} labels are not; worst {worst} {how}", n_off == 0)


def _memorisation(report: EvaluationReport, system: str) -> Iterator[Target]:
    low, high = NEAREST_TRAINING_RATIO
    yield _judged(
        f"nearest_training_ratio in {low}-{high}",
        report,
        "nearest_training_ratio",
        system,
        lambda ours, _: low <= ours <= high,
    )
    yield _judged(
        f"membership_auroc at most {MAX_MEMBERSHIP_AUROC}",
        report,
        "membership_auroc",
        system,
        lambda ours, _: ours <= MAX_MEMBERSHIP_AUROC,
    )
    for metric in ("exact_duplicates", "near_duplicates"):
        # Fewer copies than among real cells differ from these too, and are no memorisation.
        is_real = as_real(report, metric, system)
        yield _judged(
            f"{metric} not above those of real cells",
            report,
            metric,
            system,
            lambda ours, ceiling, is_real=is_real: None if is_real is None else is_real or ours <= ceiling,
        )


def _ahead(report: EvaluationReport, system: str) -> Iterator[Target]:
    """Count the metrics on which a baseline that is not at the ceiling itself is ahead of the system."""
    for baseline in (name for name in BASELINE_SYSTEMS if name in report.systems.names):
        # a baseline or a system that has no value, or a baseline at the ceiling, leaves nothing to compare
        compared = [
            row
            for row in report.rows
            if not in_own_space(row) and at_ceiling(row, baseline) is False and at_ceiling(row, system) is not None
        ]
        behind = [row.label for row in compared if rank(row, system, [baseline]) == "behind"]
        value = f"behind on {len(behind)} of {len(compared)}" + (f": {', '.join(behind)}" if behind else "")
        yield Target(f"ahead of {baseline} where it is not at the ceiling", value, not behind)


def as_real(report: EvaluationReport, metric: str, system: str) -> bool | None:
    """Whether a system scores as real cells do, in the primary space; None where that is not known."""
    return at_ceiling(next(row for row in report.rows if row.info.name == metric), system)


def _judged(
    name: str,
    report: EvaluationReport,
    metric: str,
    system: str,
    is_met: Callable[[float, float], bool | None],
    condition: str | None = None,
) -> Target:
    ours, ceiling = (report.value(metric, one, condition=condition) for one in (system, "ceiling"))
    if ours is None or ceiling is None:
        return Target(name, "-", None)
    return Target(name, f"{ours:.4g} (ceiling {ceiling:.4g})", is_met(ours, ceiling))

"""What generated cells have to reach, as multiples of what real cells reach, and whether they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scldm.evaluation import EvaluationReport
from scldm.evaluation.baselines import BASELINES

__all__ = ["Target", "check"]

OURS = "scldm"
BASELINE_SYSTEMS = (*BASELINES, "scvi")

MAX_NEAREST_NEIGHBOUR_ACCURACY = 0.54
MAX_MEMBERSHIP_AUROC = 0.55
MAX_LABEL_GAP = 0.03
MAX_GAP_OF_ONE_LABEL = 0.10
CELLS_OF_A_LABEL = 20
NEAREST_TRAINING_RATIO = (0.95, 1.10)


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
    """Compare a system's figures with the targets."""
    return [
        *_figures(report, system),
        *_labels(report, system),
        *_memorisation(report, system),
        *_ahead(report, system),
    ]


def _figures(report: EvaluationReport, system: str) -> Iterator[Target]:
    def at_most(figure: str, factor: float) -> Target:
        return _judged(
            f"{figure} at most {factor} x ceiling",
            report,
            figure,
            system,
            lambda ours, ceiling: ours <= factor * ceiling,
        )

    yield _judged(
        f"nearest_neighbour_accuracy at most {MAX_NEAREST_NEIGHBOUR_ACCURACY}",
        report,
        "nearest_neighbour_accuracy",
        system,
        lambda ours, _: ours <= MAX_NEAREST_NEIGHBOUR_ACCURACY,
    )
    yield at_most("frechet_distance", 1.3)
    yield at_most("wasserstein2", 1.03)
    for figure in ("precision", "recall"):
        name = f"{figure} within .10 of the ceiling"
        yield _judged(name, report, figure, system, lambda ours, ceiling: abs(ours - ceiling) <= 0.10)
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
            f"label_agreement[{condition}]",
            system,
            lambda ours, real: abs(ours - real) <= MAX_LABEL_GAP,
        )
        gaps = {}
        for row in report.labels:
            ours, real = row.agreement.get(system), row.agreement.get("real")
            if row.condition == condition and row.n_real > CELLS_OF_A_LABEL and ours is not None and real is not None:
                gaps[row.label] = ours.value - real.value
        name = f"labels of {condition} with more than {CELLS_OF_A_LABEL} cells within {MAX_GAP_OF_ONE_LABEL}"
        if not gaps:
            yield Target(name, "no such label", None)
            continue
        worst = max(gaps, key=lambda label: abs(gaps[label]))
        n_off = sum(abs(gap) > MAX_GAP_OF_ONE_LABEL for gap in gaps.values())
        yield Target(name, f"{n_off} of {len(gaps)} labels are not; worst {worst} {gaps[worst]:+.3f}", n_off == 0)


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


def _ahead(report: EvaluationReport, system: str) -> Iterator[Target]:
    """Count the figures on which a baseline that is not at the ceiling itself is ahead of the system."""
    for baseline in (name for name in BASELINE_SYSTEMS if name in report.systems):
        behind, n_compared = [], 0
        for row in report.figures:
            values = [report.value(row.name, name) for name in (system, baseline, "ceiling")]
            if None in values or _at_ceiling(report, row.name, baseline):
                continue
            ours, theirs, ceiling = (float(value) for value in values if value is not None)
            n_compared += 1
            if _badness(row.direction, ours, ceiling) > _badness(row.direction, theirs, ceiling):
                behind.append(row.name)
        value = f"behind on {len(behind)} of {n_compared}" + (f": {', '.join(behind)}" if behind else "")
        yield Target(f"ahead of {baseline} where it is not at the ceiling", value, not behind)


def _at_ceiling(report: EvaluationReport, figure: str, baseline: str) -> bool:
    """Whether a baseline is as good as real cells: better, or with an interval that overlaps the ceiling's."""
    direction = next(row.direction for row in report.figures if row.name == figure)
    value, ceiling = report.value(figure, baseline), report.value(figure, "ceiling")
    assert value is not None
    assert ceiling is not None
    if _badness(direction, value, ceiling) <= _badness(direction, ceiling, ceiling):
        return True
    own, real = report.interval(figure, baseline), report.interval(figure, "ceiling")
    return own is not None and real is not None and own[0] <= real[1] and real[0] <= own[1]


def _badness(direction: str, value: float, ceiling: float) -> float:
    return {"lower": value, "higher": -value}.get(direction, abs(value - ceiling))


def _judged(
    name: str, report: EvaluationReport, figure: str, system: str, is_met: Callable[[float, float], bool]
) -> Target:
    ours, ceiling = report.value(figure, system), report.value(figure, "ceiling")
    if ours is None or ceiling is None:
        return Target(name, "-", None)
    return Target(name, f"{ours:.4g} (ceiling {ceiling:.4g})", is_met(ours, ceiling))

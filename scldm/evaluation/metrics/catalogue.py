"""The page of metrics in the documentation, from what the registry knows of them.

``python -m scldm.evaluation.metrics.catalogue > docs/metrics.md`` writes it anew.
"""

from __future__ import annotations

from scldm.evaluation.metrics import METRICS
from scldm.evaluation.metrics.registry import Metric
from scldm.evaluation.null import LEVEL
from scldm.evaluation.records import GROUPS

__all__ = ["metrics_page"]

INTRODUCTION = f"""# Metrics

Every metric compares cells of one system with as many held-out real cells, the reference. The *ceiling* is the other
half of the held-out cells. Values are means over random halvings (20; fewer where that takes long), which are the same
for every system.

**What real cells would score.** Were generated cells real, they and the held-out ones could be exchanged. So both are
put into one pool and dealt anew, 99 times (39 where that takes long), and the difference (system - ceiling) is computed
each time. A generator is called worse than real cells where its own difference is beyond those of 95 % of permutations:
on the bad side, or on both sides where values should be closest to the ceiling. Real cells are called worse in
{LEVEL:.0%} of evaluations, by every metric, whatever the metric and however few the cells. So of 50 metrics two or
three call real cells worse by chance; as metrics depend on each other it is sometimes more, and the report says how
many it is in 19 of 20 evaluations of real cells. The same rule decides about marks, colours and findings. A finding
asks for more: that the difference is above a limit, and that chance does not explain it with as many metrics
(Bonferroni's correction).

Where the labels of a generator are as frequent as those of the held-out cells, cells are exchanged within labels only,
and their shares are not judged. Cells that were made from held-out ones, one from each, are swapped in pairs. With
groups, such as donors, halves keep groups whole, and the generator is held against what cells of other groups score.
The membership attack has a null of its own: training cells and held-out ones are exchanged.

A generator that is far from real makes its pool, and so the range of what real cells would score, wider than it is; its
own values are farther off still.
"""


def metrics_page() -> str:
    """Lay out all metrics in markdown: definition, values, direction, and where they say little."""
    parts = [INTRODUCTION]
    for group, heading in GROUPS.items():
        parts.append(f"## {heading}\n")
        parts += [_entry(name, metric) for name, metric in METRICS.items() if metric.info.group == group]
    return "\n".join(parts)


def _entry(name: str, metric: Metric) -> str:
    scope = {"once": "", "space": "; in every space", "condition": "; for every condition"}[metric.scope]
    best = {"lower": "lower is better", "higher": "higher is better"}.get(
        metric.info.direction, "closest to the ceiling is best"
    )
    return (
        f"### {metric.info.display_name} (`{name}`)\n\n{metric.info.description}\n\n"
        f"*Values*: {metric.values}; {best}{scope}. *Where it says little*: {metric.degenerate}\n"
    )


if __name__ == "__main__":
    print(metrics_page(), end="")

"""Judging generated cells against real ones; needs AnnData objects only, from any generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scldm.lazy import lazy_names

if TYPE_CHECKING:
    from scldm.evaluation.compare import Comparison
    from scldm.evaluation.findings import Finding
    from scldm.evaluation.labels import LabelFidelity
    from scldm.evaluation.material import GeneOverlap
    from scldm.evaluation.metrics import METRICS, Limit, Metric, metric
    from scldm.evaluation.page.write import write_page
    from scldm.evaluation.plots.overview import draw_overview
    from scldm.evaluation.records import MetricInfo, Multiplicity, Record, Row
    from scldm.evaluation.report import EvaluationReport
    from scldm.evaluation.run import evaluate
    from scldm.evaluation.systems import System, Systems

__all__ = [
    "METRICS",
    "Comparison",
    "EvaluationReport",
    "Finding",
    "GeneOverlap",
    "LabelFidelity",
    "Limit",
    "Metric",
    "MetricInfo",
    "Multiplicity",
    "Record",
    "Row",
    "System",
    "Systems",
    "draw_overview",
    "evaluate",
    "metric",
    "write_page",
]

_MODULES = {
    "compare": ["Comparison"],
    "findings": ["Finding"],
    "labels": ["LabelFidelity"],
    "metrics": ["METRICS", "Limit", "Metric", "metric"],
    "page.write": ["write_page"],
    "plots.overview": ["draw_overview"],
    "material": ["GeneOverlap"],
    "records": ["MetricInfo", "Multiplicity", "Record", "Row"],
    "report": ["EvaluationReport"],
    "run": ["evaluate"],
    "systems": ["System", "Systems"],
}

__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)

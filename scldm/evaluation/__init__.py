"""Judging generated cells against real ones; needs AnnData objects only, from any generator."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scldm.evaluation.bootstrap import Estimate
    from scldm.evaluation.findings import Finding
    from scldm.evaluation.labels import LabelFidelity
    from scldm.evaluation.metrics import METRICS, Limit, Metric, metric
    from scldm.evaluation.page import write_page
    from scldm.evaluation.plots import draw_overview
    from scldm.evaluation.prepare import GeneOverlap
    from scldm.evaluation.records import MetricInfo, Record, Row
    from scldm.evaluation.report import EvaluationReport
    from scldm.evaluation.run import evaluate
    from scldm.evaluation.systems import System, Systems

__all__ = [
    "METRICS",
    "Estimate",
    "EvaluationReport",
    "Finding",
    "GeneOverlap",
    "LabelFidelity",
    "Limit",
    "Metric",
    "MetricInfo",
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
    "bootstrap": ["Estimate"],
    "findings": ["Finding"],
    "labels": ["LabelFidelity"],
    "metrics": ["METRICS", "Limit", "Metric", "metric"],
    "page": ["write_page"],
    "plots": ["draw_overview"],
    "prepare": ["GeneOverlap"],
    "records": ["MetricInfo", "Record", "Row"],
    "report": ["EvaluationReport"],
    "run": ["evaluate"],
    "systems": ["System", "Systems"],
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that a module of this package loads only what it needs."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

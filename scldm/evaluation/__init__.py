"""Judging generated cells against real ones; needs AnnData objects only, from any generator."""

from scldm.evaluation.fidelity import evaluate
from scldm.evaluation.findings import Finding
from scldm.evaluation.labels import LabelFidelity
from scldm.evaluation.preparation import GeneOverlap
from scldm.evaluation.registry import FIGURES, figure
from scldm.evaluation.report import EvaluationReport
from scldm.evaluation.resampling import Estimate
from scldm.evaluation.values import FigureValues, Value

__all__ = [
    "FIGURES",
    "Estimate",
    "EvaluationReport",
    "FigureValues",
    "Finding",
    "GeneOverlap",
    "LabelFidelity",
    "Value",
    "evaluate",
    "figure",
]

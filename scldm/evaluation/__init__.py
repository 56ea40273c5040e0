"""Judging generated cells against real ones; needs AnnData objects only, from any generator."""

from scldm.evaluation.fidelity import evaluate
from scldm.evaluation.preparation import GeneOverlap
from scldm.evaluation.registry import FIGURES, figure
from scldm.evaluation.report import EvaluationReport, FigureValues

__all__ = ["FIGURES", "EvaluationReport", "FigureValues", "GeneOverlap", "evaluate", "figure"]

"""The metrics, one file per topic; importing this package registers all of them, in the order of the table."""

from scldm.evaluation.metrics import (  # noqa: I001 (the order of the table)
    transport,
    kernels,
    frechet,
    two_sample,
    genes,
    correlations,
    markers,
    labels,
    memorisation,
    depth,
)
from scldm.evaluation.metrics.registry import METRICS, Limit, Metric, metric

__all__ = [
    "METRICS",
    "Limit",
    "Metric",
    "correlations",
    "depth",
    "frechet",
    "genes",
    "kernels",
    "labels",
    "markers",
    "memorisation",
    "metric",
    "transport",
    "two_sample",
]

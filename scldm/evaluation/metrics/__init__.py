"""The metrics, one file per topic; importing this package registers all of them, in the order of the table."""

from scldm.evaluation.metrics import transport, kernels, frechet, two_sample  # noqa: F401, I001
from scldm.evaluation.metrics import genes, correlations, markers, labels, memorisation, depth  # noqa: F401
from scldm.evaluation.metrics.registry import METRICS, Limit, Metric, metric

__all__ = ["METRICS", "Limit", "Metric", "metric"]

"""Cells from files: schema, sources, batches and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scldm.lazy import lazy_names

if TYPE_CHECKING:
    from scldm.data.attributes import CategoricalAttribute, ContinuousAttribute
    from scldm.data.batch import CellBatch
    from scldm.data.counts import read_counts
    from scldm.data.demo import load_demo
    from scldm.data.depth import DepthStatistics
    from scldm.data.genes import GeneCoverage
    from scldm.data.opening import open_source
    from scldm.data.order import BatchIndices, EpochOrder
    from scldm.data.schema import DatasetSchema
    from scldm.data.source import CellDataset, CellSource
    from scldm.data.split import split_cells

__all__ = [
    "BatchIndices",
    "CategoricalAttribute",
    "CellBatch",
    "CellDataset",
    "CellSource",
    "ContinuousAttribute",
    "DatasetSchema",
    "DepthStatistics",
    "EpochOrder",
    "GeneCoverage",
    "load_demo",
    "open_source",
    "read_counts",
    "split_cells",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BatchIndices": "scldm.data.order",
        "CategoricalAttribute": "scldm.data.attributes",
        "CellBatch": "scldm.data.batch",
        "CellDataset": "scldm.data.source",
        "CellSource": "scldm.data.source",
        "ContinuousAttribute": "scldm.data.attributes",
        "DatasetSchema": "scldm.data.schema",
        "DepthStatistics": "scldm.data.depth",
        "EpochOrder": "scldm.data.order",
        "GeneCoverage": "scldm.data.genes",
        "load_demo": "scldm.data.demo",
        "open_source": "scldm.data.opening",
        "read_counts": "scldm.data.counts",
        "split_cells": "scldm.data.split",
    },
)

"""Cells from files: schema, sources, batches and their order."""

from scldm.data.alignment import GeneCoverage
from scldm.data.backed import BackedSource
from scldm.data.batch import CellBatch
from scldm.data.counts import read_counts
from scldm.data.demo import load_demo
from scldm.data.opening import open_source
from scldm.data.sampler import BatchIndices, CellDataset, EpochOrder
from scldm.data.schema import CategoricalAttribute, ContinuousAttribute, DatasetSchema, DepthStatistics
from scldm.data.source import AnnDataSource, CellSource
from scldm.data.split import split_cells

__all__ = [
    "AnnDataSource",
    "BackedSource",
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

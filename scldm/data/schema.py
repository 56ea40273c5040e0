"""What a model knows about its training data: genes, attributes and sequencing depth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Int, Int64

from scldm.data.attribute_set import AttributeSet
from scldm.data.attributes import CategoricalAttribute, ContinuousAttribute
from scldm.data.depth import DepthStatistics, Numbers
from scldm.data.labels import label_of
from scldm.data.table import CellTable
from scldm.errors import UserError, nearest_names

__all__ = ["CategoricalAttribute", "ContinuousAttribute", "DatasetSchema", "DepthStatistics"]

FORMAT_VERSION = 1

Names = Sequence[str] | np.ndarray | pd.Index


@dataclass(frozen=True)
class DatasetSchema:
    """Genes, attributes and depth of the training data; all that is needed to read other data or to ask for cells.

    Attributes
    ----------
    genes
        Gene names in model order, unique.
    categorical, continuous
        The attributes; everywhere the categorical ones come first, each kind in this order.
    depth
        Library sizes of the training cells over ``genes``.
    n_cells
        Number of training cells.
    combinations
        Every combination of category codes that a training cell had (-1: unlabelled), sorted.
    """

    genes: tuple[str, ...]
    categorical: tuple[CategoricalAttribute, ...]
    continuous: tuple[ContinuousAttribute, ...]
    depth: DepthStatistics
    n_cells: int
    combinations: tuple[tuple[int, ...], ...]

    @classmethod
    def of_cells(cls, genes: Names, table: CellTable, library_sizes: Numbers) -> DatasetSchema:
        """Describe training cells.

        Parameters
        ----------
        genes
            Unique gene names.
        table
            Their attributes.
        library_sizes
            UMI counts per cell over ``genes``.
        """
        codes = table.categorical
        seen = _distinct_rows(codes).tolist() if codes.shape[1] else []
        return cls(
            genes=tuple(map(str, genes)),
            categorical=table.attributes.categorical,
            continuous=table.attributes.continuous,
            depth=DepthStatistics.from_library_sizes(library_sizes),
            n_cells=len(codes),
            combinations=tuple(sorted(tuple(row) for row in seen)),
        )

    @classmethod
    def from_counts(
        cls, counts: Any, genes: Names, obs: pd.DataFrame, categorical: Names = (), continuous: Names = ()
    ) -> DatasetSchema:
        """Describe cells that are at hand as a matrix and a table; nothing is left out.

        Parameters
        ----------
        counts
            UMI counts, cells x genes, dense or sparse.
        genes
            Unique gene names.
        obs
            One row per cell.
        categorical, continuous
            Names of the columns to condition on.

        Raises
        ------
        UserError
            If a column is missing, incompletely labelled, or of the wrong kind.
        """
        table = CellTable.read(obs, as_names(categorical), as_names(continuous))
        return cls.of_cells(genes, table, np.asarray(counts.sum(axis=1), dtype=np.float64).ravel())

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.genes)

    @property
    def n_categories(self) -> tuple[int, ...]:
        """Number of categories of each categorical attribute."""
        return tuple(len(attribute.categories) for attribute in self.categorical)

    @cached_property
    def attributes(self) -> AttributeSet:
        """All attributes."""
        return AttributeSet(self.categorical, self.continuous)

    @property
    def categorical_names(self) -> tuple[str, ...]:
        """Names of the categorical attributes."""
        return self.attributes.categorical_names

    @property
    def continuous_names(self) -> tuple[str, ...]:
        """Names of the continuous attributes."""
        return self.attributes.continuous_names

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of all attributes, categorical first."""
        return self.attributes.names

    def gene_index(self, names: Names) -> Int64[np.ndarray, " names"]:
        """Return the positions of genes; raises ``UserError`` for a gene that the model does not know."""
        wanted = pd.Index(list(names), dtype=object)
        index = self._gene_positions.get_indexer(wanted)
        unknown = wanted[index < 0]
        if len(unknown):
            others = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise UserError(f"unknown gene '{unknown[0]}'{others}; {nearest_names(unknown[0], self.genes)}")
        return index.astype(np.int64)

    def encode_attributes(
        self, obs: pd.DataFrame
    ) -> tuple[Int64[np.ndarray, "cells n_categorical"], Float32[np.ndarray, "cells n_continuous"]]:
        """Turn attributes into numbers; see :meth:`scldm.data.attribute_set.AttributeSet.encode`."""
        return self.attributes.encode(obs)

    def decode_attributes(
        self,
        categorical: Int[np.ndarray, "cells n_categorical"],
        continuous: Float[np.ndarray, "cells n_continuous"],
    ) -> pd.DataFrame:
        """Turn numbers back into a table of all attributes; categorical columns carry all training categories."""
        return self.attributes.decode(categorical, continuous)

    def observed(self, categorical: Int[np.ndarray, "cells n_categorical"]) -> Bool[np.ndarray, " cells"]:
        """Tell which combinations of category codes at least one training cell had; -1 matches everything."""
        seen = np.array(self.combinations, dtype=np.int64).reshape(len(self.combinations), len(self.categorical))
        result = np.ones(len(categorical), dtype=bool)
        given = categorical >= 0
        for pattern in _distinct_rows(given):
            if pattern.any():
                rows = (given == pattern).all(axis=1)
                known = pd.MultiIndex.from_arrays(list(_distinct_rows(seen[:, pattern]).T))
                result[rows] = pd.MultiIndex.from_arrays(list(categorical[rows][:, pattern].T)).isin(known)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain JSON types, with its format version."""
        return {"format_version": FORMAT_VERSION, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, fields: Any) -> DatasetSchema:
        """Rebuild a schema from ``to_dict``; raises ``UserError`` for a newer format or damaged contents."""
        version = fields.get("format_version") if isinstance(fields, dict) else None
        if not isinstance(version, int):
            raise UserError("this is not a scldm schema: it has no format_version")
        if version > FORMAT_VERSION:
            raise UserError(
                f"the schema has format version {version}, this scldm reads up to {FORMAT_VERSION}; update scldm"
            )
        try:
            return cls(
                genes=tuple(fields["genes"]),
                categorical=tuple(
                    CategoricalAttribute(a["name"], tuple(a["categories"]), tuple(a["counts"]))
                    for a in fields["categorical"]
                ),
                continuous=tuple(ContinuousAttribute(**a) for a in fields["continuous"]),
                depth=DepthStatistics(fields["depth"]["n_cells"], tuple(fields["depth"]["quantiles"])),
                n_cells=int(fields["n_cells"]),
                combinations=tuple(tuple(row) for row in fields["combinations"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"the schema is damaged: {type(error).__name__} {error}") from error

    @cached_property
    def _gene_positions(self) -> pd.Index:
        return pd.Index(self.genes, dtype=object)


def as_names(names: Names) -> tuple[str, ...]:
    """Accept one name where a sequence of names is meant; raises ``UserError`` for what is neither."""
    if isinstance(names, str | bytes):
        return (label_of(names),)
    if not isinstance(names, Iterable) or np.shape(names) == ():
        raise UserError(f"{names!r} is no list of names.")
    return tuple(str(name) for name in names)


def _distinct_rows(table: np.ndarray) -> np.ndarray:
    # Hashing, unlike numpy.unique, does not sort millions of rows to find a handful.
    return pd.DataFrame(table).drop_duplicates().to_numpy()

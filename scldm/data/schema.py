"""What a model knows about its training data: genes, attributes and sequencing depth."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Bool, Float, Float32, Int, Int64

from scldm.data.attributes import CategoricalAttribute, ContinuousAttribute
from scldm.data.depth import DepthStatistics, Numbers
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
    def from_counts(
        cls,
        matrix: sp.csr_matrix | sp.csr_array,
        genes: Names,
        obs: pd.DataFrame,
        categorical: Names = (),
        continuous: Names = (),
        missing_labels: str = "error",
    ) -> DatasetSchema:
        """Describe a count matrix.

        Parameters
        ----------
        matrix
            UMI counts, cells x genes.
        genes, obs, categorical, continuous, missing_labels
            As in :meth:`from_library_sizes`.
        """
        library_sizes = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
        return cls.from_library_sizes(library_sizes, genes, obs, categorical, continuous, missing_labels)

    @classmethod
    def from_library_sizes(
        cls,
        library_sizes: Numbers,
        genes: Names,
        obs: pd.DataFrame,
        categorical: Names = (),
        continuous: Names = (),
        missing_labels: str = "error",
    ) -> DatasetSchema:
        """Describe cells whose counts are not at hand.

        Parameters
        ----------
        library_sizes
            UMI counts per cell over ``genes``.
        genes
            Unique gene names.
        obs
            One row per cell with at least the columns named next.
        categorical, continuous
            Names of the ``obs`` columns to condition on.
        missing_labels
            ``"error"`` refuses cells without a label or value; ``"unlabelled"`` keeps them.

        Raises
        ------
        UserError
            If a column is missing, named twice, incompletely labelled, or of the wrong kind; if genes are duplicated.
        """
        check_unique_genes(genes)
        if not len(genes) or not len(obs):
            raise UserError(f"the data has {len(obs)} cells and {len(genes)} genes; at least one of each is needed")
        labels, measures = fit_attributes(obs, as_names(categorical), as_names(continuous), missing_labels)
        codes = [attribute.encode(obs[attribute.name]) for attribute in labels]
        seen = _distinct_rows(np.stack(codes, axis=1)).tolist() if codes else []
        return cls(
            genes=tuple(map(str, genes)),
            categorical=labels,
            continuous=measures,
            depth=DepthStatistics.from_library_sizes(library_sizes),
            n_cells=len(obs),
            combinations=tuple(sorted(tuple(row) for row in seen)),
        )

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.genes)

    @property
    def n_categories(self) -> tuple[int, ...]:
        """Number of categories of each categorical attribute."""
        return tuple(len(attribute.categories) for attribute in self.categorical)

    @property
    def categorical_names(self) -> tuple[str, ...]:
        """Names of the categorical attributes."""
        return tuple(attribute.name for attribute in self.categorical)

    @property
    def continuous_names(self) -> tuple[str, ...]:
        """Names of the continuous attributes."""
        return tuple(attribute.name for attribute in self.continuous)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of all attributes, categorical first."""
        return self.categorical_names + self.continuous_names

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
        self, obs: pd.DataFrame, *, unknown: str = "error"
    ) -> tuple[Int64[np.ndarray, "cells n_categorical"], Float32[np.ndarray, "cells n_continuous"]]:
        """Turn attributes into numbers.

        Parameters
        ----------
        obs
            One row per cell; columns are attributes, not necessarily all of them.
        unknown
            ``"error"`` raises ``UserError`` for a label that the training data did not have; ``"unlabelled"`` drops it.

        Returns
        -------
        categorical
            Category codes, -1 where the attribute is absent or missing.
        continuous
            Standardised values, NaN where the attribute is absent or missing.

        Raises
        ------
        UserError
            For a column that is not an attribute, or a label that is not one of its categories.
        """
        for column in obs.columns:
            if column not in self.attribute_names:
                raise UserError(f"unknown attribute '{column}'; {self._attribute_help(column)}")
        codes = np.full((len(obs), len(self.categorical)), -1, dtype=np.int64)
        values = np.full((len(obs), len(self.continuous)), np.nan, dtype=np.float32)
        for i, label in enumerate(self.categorical):
            if label.name in obs:
                codes[:, i] = label.encode(obs[label.name], unknown=unknown)
        for i, measure in enumerate(self.continuous):
            if measure.name in obs:
                values[:, i] = measure.encode(obs[measure.name])
        return codes, values

    def decode_attributes(
        self,
        categorical: Int[np.ndarray, "cells n_categorical"],
        continuous: Float[np.ndarray, "cells n_continuous"],
    ) -> pd.DataFrame:
        """Turn numbers back into a table of all attributes; categorical columns carry all training categories."""
        columns: dict[str, Any] = {}
        for i, label in enumerate(self.categorical):
            columns[label.name] = label.decode(categorical[:, i])
        for i, measure in enumerate(self.continuous):
            columns[measure.name] = measure.decode(continuous[:, i])
        return pd.DataFrame(columns, index=pd.RangeIndex(len(categorical)))

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
    def from_dict(cls, fields: dict[str, Any]) -> DatasetSchema:
        """Rebuild a schema from ``to_dict``; raises ``UserError`` for a newer format or damaged contents."""
        version = fields.get("format_version")
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
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the schema is damaged: {type(error).__name__} {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the schema as JSON; an existing file is replaced at once or not at all."""
        path = Path(path)
        beside = path.with_name(path.name + ".partial")
        beside.write_text(json.dumps(self.to_dict(), indent=1) + "\n")
        beside.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DatasetSchema:
        """Read a schema that ``save`` wrote."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"there is no schema file '{path}'")
        try:
            fields = json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"'{path}' is not valid JSON: {error}") from error
        try:
            return cls.from_dict(fields if isinstance(fields, dict) else {})
        except UserError as error:
            raise UserError(f"'{path}': {error}") from error

    @cached_property
    def _gene_positions(self) -> pd.Index:
        return pd.Index(self.genes, dtype=object)

    def _attribute_help(self, name: object) -> str:
        return nearest_names(name, self.attribute_names) if self.attribute_names else "the model has no attributes"


def as_names(names: Names) -> tuple[str, ...]:
    """Accept one name where a sequence of names is meant."""
    return (names,) if isinstance(names, str) else tuple(str(name) for name in names)


def check_unique_genes(genes: Names) -> None:
    """Raise ``UserError`` if a gene name occurs twice."""
    index = pd.Index(list(genes))
    if not index.is_unique:
        repeated = index[index.duplicated()].unique()
        raise UserError(
            f"{len(repeated)} gene names occur more than once, for example '{repeated[0]}'; "
            "genes are told apart by name, so make them unique with adata.var_names_make_unique()"
        )


def check_labelled(column: pd.Series, name: str) -> None:
    """Raise ``UserError`` if a cell has no label."""
    n_missing = int(column.isna().sum())
    if n_missing:
        raise UserError(
            f"obs column '{name}' is missing for {n_missing} of {len(column)} cells; remove these cells, or train on "
            "them as unlabelled with missing_labels='unlabelled'"
        )


def check_column(obs: pd.DataFrame, name: str) -> None:
    """Raise ``UserError`` if a column is not there."""
    if name not in obs.columns:
        help_ = nearest_names(name, obs.columns) if len(obs.columns) else "obs has no columns"
        raise UserError(f"there is no obs column '{name}'; {help_}")


def fit_attributes(
    obs: pd.DataFrame, categorical: tuple[str, ...], continuous: tuple[str, ...], missing_labels: str
) -> tuple[tuple[CategoricalAttribute, ...], tuple[ContinuousAttribute, ...]]:
    """Collect the attributes of the training cells; arguments and errors as in ``DatasetSchema.from_library_sizes``."""
    names = categorical + continuous
    for name in names:
        if name in categorical and name in continuous:
            raise UserError(f"obs column '{name}' is named as categorical and as continuous; choose one")
        if names.count(name) > 1:
            raise UserError(f"obs column '{name}' is named twice")
        check_column(obs, name)
        if missing_labels == "error":
            check_labelled(obs[name], name)
    return (
        tuple(CategoricalAttribute.fit(obs[name], name) for name in categorical),
        tuple(ContinuousAttribute.fit(obs[name], name) for name in continuous),
    )


def _distinct_rows(table: np.ndarray) -> np.ndarray:
    # Hashing, unlike numpy.unique, does not sort millions of rows to find a handful.
    return pd.DataFrame(table).drop_duplicates().to_numpy()

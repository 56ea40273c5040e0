"""The cells of a real file as a request: the same attributes, row by row."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from scldm.data.h5ad import open_h5ad, read_obs
from scldm.data.schema import DatasetSchema
from scldm.errors import UserError, nearest_names
from scldm.seeds import numpy_rng

__all__ = ["cells_like"]


def cells_like(
    schema: DatasetSchema,
    path: Path,
    columns: Mapping[str, Any],
    n_cells: int | None,
    seed: int,
    *,
    for_depth: bool,
) -> tuple[Int[np.ndarray, " cells"], dict[str, Any]]:
    """Choose rows of a real file to be reproduced, and read the attributes that they have.

    Parameters
    ----------
    schema
        Of the model.
    path
        The real ``.h5ad``.
    columns
        Attributes whose values are given otherwise; they are not read.
    n_cells
        How many rows; None takes each once, another number whole copies of the file and a random rest.
    seed
        Of the random rest.
    for_depth
        Whether the depths of the rows are wanted, so that a file without any attribute is of use.

    Returns
    -------
    The rows, and for every attribute of the model that is known of any cell a value per row.

    Raises
    ------
    UserError
        If the file has no cells or none of the attributes, or a label is unknown.

    Warns
    -----
    UserWarning
        If some attributes are left to the model.
    """
    with open_h5ad(path) as file:
        obs = read_obs(file)
    if not len(obs):
        raise UserError(f"'{path}' has no cells.")
    known = {name for name in schema.attribute_names if name in obs.columns and obs[name].notna().any()}
    names = [name for name in schema.attribute_names if name in known and name not in columns]
    if not names and not columns and not for_depth:
        wanted = schema.attribute_names
        if not wanted:
            raise UserError(f"the model has no attributes to take from '{path}'; add --depth like, or use --n-cells N.")
        hint = nearest_names(wanted[0], obs.columns) if len(obs.columns) else "the file has no obs columns"
        raise UserError(f"'{path}' has none of the model's attributes ({', '.join(wanted)}) in obs; {hint}")
    try:
        schema.encode_attributes(obs[names])
    except UserError as error:
        raise UserError(f"in '{path}': {error}") from error
    left = [name for name in schema.attribute_names if name not in (*names, *columns)]
    if left:
        warnings.warn(f"'{path}' does not have {', '.join(left)}; the model chooses the values.", stacklevel=2)
    rows = np.arange(len(obs))
    if n_cells is not None and n_cells != len(obs):
        # Whole copies of the file and a random rest keep its proportions.
        copies, rest = divmod(n_cells, len(obs))
        drawn = numpy_rng(seed).choice(len(obs), rest, replace=False)
        rows = np.sort(np.concatenate([np.tile(rows, copies), drawn]))
    taken = {name: obs[name].iloc[rows].reset_index(drop=True) for name in names}
    fixed = {name: pd.Series([value] * len(rows)) for name, value in columns.items()}
    return rows, {**taken, **fixed}

"""What cells are asked for: how many, with which attributes, how deep, steered how."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from scldm.data.counts import LARGEST_EXACT_COUNT
from scldm.data.schema import ContinuousAttribute, DatasetSchema, as_names
from scldm.errors import UserError, nearest_names
from scldm.prior.few_step.field import GUIDANCE_SCALES
from scldm.prior.guidance import Guidance
from scldm.prior.registry import find_solver

__all__ = ["CHUNK_CELLS", "Conditions", "GenerationRequest"]

#: Cells of one work chunk. All randomness of a chunk comes from (seed, chunk number) and a chunk always passes through
#: the networks by itself, in this size, on the CPU: so the counts depend on neither batch size nor processes.
CHUNK_CELLS = 128

#: What a condition may be: one value for all cells, or one per cell.
Conditions = Mapping[str, Any] | pd.DataFrame


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """Cells to generate. Build it with :meth:`build`, which checks everything against the schema.

    Attributes
    ----------
    categorical, continuous
        Per cell, the codes and standardised values asked for; -1 and NaN where an attribute is left to the model.
    given
        Names of the attributes asked for.
    depth
        Library size (UMI) per cell, or None when the model generates it.
    genes
        Positions in the schema of the genes to return, or None for all.
    guidance, solver, steps, seed
        How the prior is sampled.
    first_chunk
        Number of the first work chunk; above 0 for a :meth:`part` of a larger request.
    """

    categorical: Int64[np.ndarray, "cells n_categorical"]
    continuous: Float32[np.ndarray, "cells n_continuous"]
    given: tuple[str, ...]
    depth: Float32[np.ndarray, " cells"] | None
    genes: Int64[np.ndarray, " genes"] | None
    guidance: Guidance
    solver: str
    steps: int
    seed: int
    first_chunk: int = 0

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.categorical)

    @property
    def n_chunks(self) -> int:
        """Number of work chunks."""
        return math.ceil(self.n_cells / CHUNK_CELLS)

    def chunk_cells(self, chunk: int) -> slice:
        """Cells of a work chunk, chunks and cells both counted from the start of this request."""
        return slice(chunk * CHUNK_CELLS, min((chunk + 1) * CHUNK_CELLS, self.n_cells))

    def part(self, number: int, parts: int) -> GenerationRequest:
        """One of several nearly equal parts, in whole work chunks.

        Parameters
        ----------
        number
            From 1 to ``parts``.
        parts
            How many. Their cells, one after the other, are exactly the cells of the whole request.

        Raises
        ------
        UserError
            If there is no such part, or fewer work chunks than parts.
        """
        if not 1 <= number <= parts:
            raise UserError(f"part {number} of {parts} does not exist; parts are counted from 1.")
        if parts > self.n_chunks:
            raise UserError(
                f"the request for {self.n_cells} cells cannot be cut into {parts} parts: work chunks of {CHUNK_CELLS} "
                f"cells stay whole, and it has {self.n_chunks}."
            )
        first, last = self.n_chunks * (number - 1) // parts, self.n_chunks * number // parts
        cells = slice(first * CHUNK_CELLS, last * CHUNK_CELLS)
        return dataclasses.replace(
            self,
            categorical=self.categorical[cells],
            continuous=self.continuous[cells],
            depth=None if self.depth is None else self.depth[cells],
            first_chunk=self.first_chunk + first,
        )

    @classmethod
    def build(
        cls,
        schema: DatasetSchema,
        n_cells: int | None = None,
        *,
        conditions: Conditions | None = None,
        depth: float | int | Sequence[float | int] | np.ndarray | None = None,
        genes: Sequence[str] | None = None,
        guidance: Guidance | float | int | Mapping[str, float | int] = 1.0,
        solver: str = "heun",
        steps: int | None = None,
        seed: int = 0,
    ) -> GenerationRequest:
        """Check a request and put it into numbers.

        Parameters
        ----------
        schema
            Of the model.
        n_cells
            Number of cells; None takes the length of the conditions or depths given per cell.
        conditions
            Any subset of the attributes, each with one value for all cells or one value per cell; or a table with one
            row per cell.
        depth
            Library size in UMI, one for all cells or one per cell; None lets the model generate it.
        genes
            Names of the genes to return, in this order; None returns all.
        guidance
            A number (joint), a mapping of attribute names to numbers (additive), or a :class:`Guidance`.
        solver, steps
            Name of the solver and its number of steps; None takes 25, of ``few_step`` 4. A step of ``few_step`` is one
            network evaluation, of ``heun`` and ``midpoint`` two.
        seed
            The same request with the same seed gives the same cells.

        Raises
        ------
        UserError
            For anything the model cannot give; the message names it and what is allowed.

        Warns
        -----
        UserWarning
            Once each, when a combination of values is asked for that no training cell had, and when numbers or depths
            lie outside the range of the training cells.
        """
        table = _conditions_table(schema, conditions, n_cells, depth)
        n_cells = len(table)
        if n_cells < 1:
            raise UserError(f"n_cells is {n_cells}; ask for at least one cell.")
        steps = find_solver(solver).default_steps if steps is None else steps
        if steps < 1:
            raise UserError(f"steps is {steps}; the solver needs at least one step.")
        if seed < 0:
            raise UserError(f"seed is {seed}; it must not be negative.")
        if seed >= 2**63:
            raise UserError(f"seed is {seed}; it must be below 2^63.")
        parsed = Guidance.parse(guidance)
        given = tuple(name for name in schema.attribute_names if name in table.columns)
        parsed.check_names(schema.attribute_names)
        _check_guidance(parsed, given)
        categorical, continuous = schema.encode_attributes(table)
        depths = _depths(depth, n_cells)
        _warn_unobserved(schema, categorical)
        _warn_out_of_range(schema, continuous, depths)
        if find_solver(solver).fitted and parsed.largest_scale > max(GUIDANCE_SCALES):
            warnings.warn(
                f"the few-step solver is made for guidance up to {max(GUIDANCE_SCALES):g} and {parsed.largest_scale:g} "
                "is asked for: take another solver if it matters.",
                UserWarning,
                stacklevel=3,
            )
        return cls(
            categorical=categorical,
            continuous=continuous,
            given=given,
            depth=depths,
            genes=_gene_positions(schema, genes),
            guidance=parsed,
            solver=solver,
            steps=steps,
            seed=seed,
        )

    def requested_obs(self, schema: DatasetSchema) -> pd.DataFrame:
        """Attributes asked for, one row per cell: categoricals with the training categories, and numbers."""
        return schema.decode_attributes(self.categorical, self.continuous)[list(self.given)]


def _conditions_table(
    schema: DatasetSchema, conditions: Conditions | None, n_cells: int | None, depth: object
) -> pd.DataFrame:
    """One row per cell, one column per attribute asked for."""
    columns = {} if conditions is None else {str(name): value for name, value in conditions.items()}
    lengths = {}
    for name, value in columns.items():
        if name not in schema.attribute_names:
            raise UserError(f"unknown attribute '{name}'; {_attribute_help(schema, name)}")
        if not np.isscalar(value) and value is not None:
            lengths[f"the values of '{name}'"] = len(value)
    if depth is not None and not np.isscalar(depth):
        lengths["the depths"] = len(depth)  # type: ignore[arg-type]
    for what, length in lengths.items():
        if n_cells is None:
            n_cells = length
        if length != n_cells:
            raise UserError(f"{what} are {length}, but {n_cells} cells are asked for; give one value, or one per cell.")
    if n_cells is None:
        raise UserError("how many cells? Give n_cells, or conditions with one value per cell.")
    if n_cells < 0:
        raise UserError(f"n_cells is {n_cells}; ask for at least one cell.")
    index = pd.RangeIndex(n_cells)
    values = {
        name: pd.Series([value] * n_cells if np.isscalar(value) or value is None else np.asarray(value), index=index)
        for name, value in columns.items()
    }
    for name, series in values.items():
        if series.isna().any():
            raise UserError(
                f"{int(series.isna().sum())} values of '{name}' are missing; leave the attribute out instead."
            )
    for measure in schema.continuous:
        if measure.name in values:
            _check_numbers(values[measure.name], measure)
    return pd.DataFrame(values, index=index)


def _check_numbers(column: pd.Series, measure: ContinuousAttribute) -> None:
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isnan(values).any():
        raise UserError(
            f"'{measure.name}' holds '{column[np.isnan(values)].iloc[0]}', which is not a number; training cells have "
            f"{measure.minimum:g} to {measure.maximum:g}."
        )
    if np.isinf(values).any():
        raise UserError(
            f"'{measure.name}' holds {int(np.isinf(values).sum())} infinite values; training cells have "
            f"{measure.minimum:g} to {measure.maximum:g}."
        )


def _check_guidance(guidance: Guidance, given: tuple[str, ...]) -> None:
    """Refuse a scale without effect: it is a misunderstanding, not a default."""
    scales = guidance.to_dict()["scales"]
    if not isinstance(scales, dict):
        if scales != 1 and not given:
            raise UserError(
                f"guidance is {scales}, but there is nothing to guide by; ask for the value of an attribute."
            )
        return
    for name in scales:
        if name not in given:
            raise UserError(f"guidance is set for '{name}', but no value of '{name}' is asked for.")


def _attribute_help(schema: DatasetSchema, name: str) -> str:
    if not schema.attribute_names:
        return "the model was trained without attributes."
    return nearest_names(name, schema.attribute_names)


def _depths(depth: Any, n_cells: int) -> Float32[np.ndarray, " cells"] | None:
    if depth is None:
        return None
    try:
        values = np.broadcast_to(np.asarray(depth, dtype=np.float32), (n_cells,)).copy()
    except ValueError:
        raise UserError(f"depth is {depth!r}; give a number of UMI, or one per cell.") from None
    possible = np.isfinite(values) & (values >= 1)
    if not possible.all():
        raise UserError(f"depth is {values[~possible][0]:g}; it must be a finite number of UMI, at least 1.")
    if (values > LARGEST_EXACT_COUNT).any():
        raise UserError(f"depth is {values.max():g}; it must be at most {LARGEST_EXACT_COUNT:,} UMI.")
    return values


def _gene_positions(schema: DatasetSchema, genes: Sequence[str] | None) -> Int64[np.ndarray, " genes"] | None:
    if genes is None:
        return None
    names = list(as_names(genes))
    if not names:
        raise UserError("the list of genes is empty.")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"gene '{repeated}' is listed more than once.")
    return schema.gene_index(names)


def _warn_unobserved(schema: DatasetSchema, categorical: Int64[np.ndarray, "cells n_categorical"]) -> None:
    if not categorical.size:
        return
    combinations = np.unique(categorical, axis=0)
    unseen = combinations[~schema.observed(combinations)]
    if not len(unseen):
        return
    labels = [
        " + ".join(
            f"{a.name}='{a.categories[code]}'" for a, code in zip(schema.categorical, row, strict=True) if code >= 0
        )
        for row in unseen[:3]
    ]
    more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
    warnings.warn(
        f"never observed together in the training data: {'; '.join(labels)}{more}. The model extrapolates.",
        UserWarning,
        stacklevel=4,
    )


def _warn_out_of_range(
    schema: DatasetSchema, continuous: Float32[np.ndarray, "cells n_continuous"], depth: np.ndarray | None
) -> None:
    asked = [
        (f"'{measure.name}'", measure.decode(continuous[:, k]), measure.minimum, measure.maximum)
        for k, measure in enumerate(schema.continuous)
    ]
    if depth is not None:
        asked.append(("depth", depth, schema.depth.minimum, schema.depth.maximum))
    found = []
    for name, values, low, high in asked:
        # Standardised values are float32: an end of the range comes back with a rounding error.
        slack = 1e-5 * max(abs(low), abs(high))
        outside = values[(values < low - slack) | (values > high + slack)]
        if len(outside):
            found.append(
                f"{name} in {len(outside)} of {len(values)} cells, such as {outside[0]:g} ({low:g} to {high:g})"
            )
    if found:
        warnings.warn(
            f"outside the range of the training data: {'; '.join(found)}. The model extrapolates.",
            UserWarning,
            stacklevel=4,
        )

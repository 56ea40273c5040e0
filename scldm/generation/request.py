"""What cells are asked for: how many, with which attributes, how deep, steered how."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from scldm.data.schema import DatasetSchema
from scldm.errors import UserError, WholeNumber, is_whole_number
from scldm.generation.conditions import (
    Conditions,
    check_guidance,
    conditions_table,
    depths_of,
    gene_positions,
    warn_out_of_range,
    warn_unobserved,
)
from scldm.prior.few_step.field import GUIDANCE_SCALES
from scldm.prior.guidance import Guidance
from scldm.prior.registry import find_solver

__all__ = ["CHUNK_CELLS", "GenerationRequest"]

#: Cells of one work chunk. All randomness of a chunk comes from (seed, chunk number) and a chunk always passes through
#: the networks by itself, in this size, on the CPU: so the counts depend on neither batch size nor processes.
CHUNK_CELLS = 128


#: More would take hours for a cell, and a float32 state would not get nearer to the solution.
MAX_STEPS = 10_000

#: Taken where the few-step solver is asked for, but not for a field that it was fitted to.
FALLBACK_SOLVER = "heun"


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
    exact_depth
        The counts of a cell add up to its depth, and not only on average.
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
    exact_depth: bool = False

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
        n_cells: WholeNumber | None = None,
        *,
        conditions: Conditions | None = None,
        depth: Any = None,
        genes: Sequence[str] | None = None,
        guidance: Any = 1.0,
        solver: str = "heun",
        steps: WholeNumber | None = None,
        seed: WholeNumber = 0,
        exact_depth: bool = False,
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
            Expected library size in UMI, one for all cells or one per cell; None lets the model generate it. The counts
            that are drawn add up to it on average, not exactly, and never to zero; see ``exact_depth``.
        genes
            Names of the genes to return, in this order; None returns all.
        guidance
            A number (joint), a mapping of attribute names to numbers (additive), or a :class:`Guidance`.
        solver, steps
            Name of the solver and its number of steps; None takes 25, of ``few_step`` 4. A step of ``few_step`` is one
            network evaluation, of ``heun`` and ``midpoint`` two. ``few_step`` is fitted to no guidance and to joint
            guidance from 1 to 3; for anything else, ``heun`` is taken with a warning.
        seed
            The same request with the same seed gives the same cells.
        exact_depth
            Draw counts that add up, over all genes of the model, to the depth of each cell: its rates are drawn first,
            and then so many molecules. A depth that the model generates is rounded to whole UMI.

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
        n_cells = None if n_cells is None else _whole("n_cells", n_cells)
        depths = depths_of(depth)
        table = conditions_table(schema, conditions, n_cells, depths)
        n_cells = len(table)
        steps = find_solver(solver).default_steps if steps is None else _whole("steps", steps)
        if not 1 <= steps <= MAX_STEPS:
            raise UserError(f"steps is {steps}; the solver takes 1 to {MAX_STEPS:,} steps.")
        seed = _whole("seed", seed)
        if seed < 0:
            raise UserError(f"seed is {seed}; it must not be negative.")
        if seed >= 2**63:
            raise UserError(f"seed is {seed}; it must be below 2^63.")
        parsed = Guidance.parse(guidance)
        given = tuple(name for name in schema.attribute_names if name in table.columns)
        parsed.check_names(schema.attribute_names)
        check_guidance(parsed, given)
        categorical, continuous = schema.encode_attributes(table)
        if depths is not None:
            depths = np.broadcast_to(depths, (n_cells,)).copy()
        if exact_depth and depths is not None and (broken := depths[depths != np.round(depths)]).size:
            raise UserError(f"depth is {broken[0]:g}; counts add up to whole numbers of UMI only.")
        warn_unobserved(schema, categorical)
        warn_out_of_range(schema, continuous, depths)
        if find_solver(solver).fitted and not _is_fitted_to(parsed, schema.attribute_names, given):
            fallback = find_solver(FALLBACK_SOLVER)
            warnings.warn(
                f"the few-step solver is fitted to no guidance, and to joint guidance from {min(GUIDANCE_SCALES):g} to "
                f"{max(GUIDANCE_SCALES):g}; for what is asked for, {fallback.default_steps} steps of "
                f"{FALLBACK_SOLVER} are taken instead.",
                UserWarning,
                stacklevel=3,
            )
            solver, steps = FALLBACK_SOLVER, fallback.default_steps
        return cls(
            categorical=categorical,
            continuous=continuous,
            given=given,
            depth=depths,
            genes=gene_positions(schema, genes),
            guidance=parsed,
            solver=solver,
            steps=steps,
            seed=seed,
            exact_depth=bool(exact_depth),
        )

    def requested_obs(self, schema: DatasetSchema) -> pd.DataFrame:
        """Attributes asked for, one row per cell: categoricals with the training categories, and numbers."""
        return schema.decode_attributes(self.categorical, self.continuous)[list(self.given)]


def _whole(name: str, value: Any) -> int:
    if not is_whole_number(value):
        raise UserError(f"{name} is {value!r}; it must be a whole number.")
    return int(value)


def _is_fitted_to(guidance: Guidance, attribute_names: Sequence[str], given: Sequence[str]) -> bool:
    """Whether few-step solvers are fitted to such a field: one velocity, or two that guidance extrapolates from."""
    rows = guidance.plan(attribute_names, given).rows
    if len(rows) == 1:
        return True
    _, (seen, coefficient) = rows[0], rows[-1]
    is_joint = len(rows) == 2 and len(seen) == len(given)
    return is_joint and min(GUIDANCE_SCALES) <= coefficient <= max(GUIDANCE_SCALES)

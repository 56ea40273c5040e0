"""Classifier-free guidance by any set of attributes: which conditions to evaluate, and how to add them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from scldm.errors import UserError, is_number, nearest_names
from scldm.prior.solvers import Velocity

__all__ = ["Guidance", "GuidancePlan", "VelocityNetwork", "guided_field"]

#: What float32 can hold.
LARGEST_SCALE = 1e38


VelocityNetwork = Callable[..., Tensor]
"""Called as ``network(state, time, categorical, continuous, depth_known)``; see :meth:`scldm.prior.dit.DiT.forward`."""


@dataclass(frozen=True)
class GuidancePlan:
    """Which velocities are evaluated and how they are added up, v = sum_r coefficient_r v(attributes_r).

    Attributes
    ----------
    n_attributes
        Attributes of the model, categorical first.
    rows
        For every velocity, the indices of the attributes it sees (all others are null) and its coefficient, never 0.
        The coefficients add up to 1.
    """

    n_attributes: int
    rows: tuple[tuple[tuple[int, ...], float], ...]

    @property
    def evaluations(self) -> int:
        """Network rows needed for one velocity of one cell."""
        return len(self.rows)


@dataclass(frozen=True)
class Guidance:
    """How strongly cells are pushed towards the attributes asked for.

    ``joint``: v = v_null + w (v_all - v_null). Scale 1 is plain conditional generation, 0 is unconditional.
    ``additive``: v = v_null + sum_k w_k (v_k - v_null), where v_k sees attribute k alone (Liu et al., 2022).

    Attributes
    ----------
    mode
        ``"joint"`` or ``"additive"``.
    scales
        One number, w; or, additive only, a number per attribute name. An attribute that is asked for but has no
        number here counts with 1. A mapping is accepted and kept as pairs, so that a guidance can be hashed.

    Raises
    ------
    UserError
        For a mode that does not exist, a scale that is negative or not finite, or scales by attribute in joint mode.
    """

    mode: str = "joint"
    scales: Any = 1.0

    def __post_init__(self) -> None:
        if self.mode not in ("joint", "additive"):
            raise UserError(f"unknown guidance mode '{self.mode}'; {nearest_names(self.mode, ('joint', 'additive'))}")
        if is_number(self.scales):
            object.__setattr__(self, "scales", _checked_scale("guidance", self.scales))
            return
        if self.mode == "joint" and isinstance(self.scales, str):
            raise UserError(f"guidance is {self.scales!r}; give a number, or a number per attribute name")
        if self.mode == "joint":
            raise UserError("joint guidance takes one number; guidance per attribute is additive")
        try:
            pairs = tuple(self.scales.items()) if isinstance(self.scales, Mapping) else tuple(self.scales)
            pairs = tuple((str(name), scale) for name, scale in pairs)
        except (TypeError, ValueError):
            raise UserError(f"guidance is {self.scales!r}; give a number, or a number per attribute name") from None
        object.__setattr__(self, "scales", tuple((k, _checked_scale(f"guidance of '{k}'", w)) for k, w in pairs))

    @classmethod
    def joint(cls, scale: Any = 1.0) -> Guidance:
        """Guide by all attributes at once."""
        return cls("joint", scale)

    @classmethod
    def additive(cls, scales: Any) -> Guidance:
        """Guide by every attribute on its own, with one scale for all or one each."""
        return cls("additive", scales)

    @classmethod
    def parse(cls, guidance: Any) -> Guidance:
        """Read what a user gives: a number is joint, a mapping of attribute names is additive."""
        if isinstance(guidance, Guidance):
            return guidance
        return cls.additive(guidance) if isinstance(guidance, Mapping) else cls.joint(guidance)

    def to_dict(self) -> dict[str, object]:
        """Return plain values to be written to a file; ``Guidance(**d)`` reads them back."""
        return {"mode": self.mode, "scales": self.scales if isinstance(self.scales, float) else dict(self._pairs)}

    @property
    def _pairs(self) -> tuple[tuple[str, float], ...]:
        return self.scales if isinstance(self.scales, tuple) else ()

    def check_names(self, attribute_names: Sequence[str]) -> None:
        """Raise a :class:`~scldm.errors.UserError` when a scale is set for an attribute the model does not know."""
        for name, _ in self._pairs:
            if name not in attribute_names:
                raise UserError(f"guidance for unknown attribute '{name}'; {nearest_names(name, attribute_names)}")

    def plan(self, attribute_names: Sequence[str], given: Sequence[str]) -> GuidancePlan:
        """Work out which velocities are needed.

        Parameters
        ----------
        attribute_names
            Attributes of the model, categorical first and then continuous, in schema order.
        given
            Attributes that were asked for. The others never count, whatever their scale; with none, only the null
            velocity is evaluated.

        Raises
        ------
        UserError
            For an attribute the model does not know.
        """
        self.check_names(attribute_names)
        for name in given:
            if name not in attribute_names:
                raise UserError(f"unknown attribute '{name}'; {nearest_names(name, attribute_names)}")
        asked = tuple(k for k, name in enumerate(attribute_names) if name in given)
        if isinstance(self.scales, float):
            default, by_name = self.scales, {}
        else:
            default, by_name = 1.0, dict(self._pairs)
        if self.mode == "joint":
            parts = [(asked, default)]
        else:
            parts = [((k,), by_name.get(attribute_names[k], default)) for k in asked]
        # With nothing asked for, the only part there can be sees nothing and is the null velocity itself.
        parts = [part for part in parts if part[0]]
        rows = [((), 1.0 - math.fsum(w for _, w in parts)), *parts]
        # Coefficients such as 1 - (0.1 + 0.2 + 0.7) are 0 but for rounding.
        return GuidancePlan(len(attribute_names), tuple(row for row in rows if abs(row[1]) > 1e-12))


def _checked_scale(what: str, scale: Any) -> float:
    try:
        number = float(scale) if is_number(scale) else math.nan
    except OverflowError:
        number = math.inf
    if not 0 <= number <= LARGEST_SCALE:
        raise UserError(f"{what} must be a finite number of at least 0, got {scale!r}")
    return number


def guided_field(
    network: VelocityNetwork,
    categorical: Int64[Tensor, "cells categorical"],
    continuous: Float[Tensor, "cells continuous"],
    plan: GuidancePlan,
    depth_known: Bool[Tensor, " cells"] | None = None,
) -> Velocity:
    """Return the guided velocity of some cells as a function of their packed state and time, ready for a solver.

    All rows of the plan go through the network in one call. An attribute that is null for some of the cells stays null
    in every row of those cells, so they are guided by what they have.

    Parameters
    ----------
    network
        Called with (rows x cells) cells.
    categorical
        Category codes, -1 where an attribute is not given.
    continuous
        Standardised values, NaN where an attribute is not given.
    plan
        See :meth:`Guidance.plan`.
    depth_known
        As in :meth:`scldm.prior.dit.DiT.forward`.
    """
    n_categorical = categorical.shape[1]
    if n_categorical + continuous.shape[1] != plan.n_attributes:
        raise ValueError(
            f"the plan is for {plan.n_attributes} attributes, the cells have {n_categorical + continuous.shape[1]}"
        )
    codes, values = [], []
    for attributes, _ in plan.rows:
        # The type is named because a tensor of no attributes would be of floats.
        seen = torch.tensor(
            [k in attributes for k in range(plan.n_attributes)], dtype=torch.bool, device=categorical.device
        )
        codes.append(torch.where(seen[:n_categorical], categorical, -1))
        values.append(torch.where(seen[n_categorical:], continuous, torch.nan))
    all_codes, all_values = torch.cat(codes), torch.cat(values)
    n_rows = len(plan.rows)
    known = None if depth_known is None else depth_known.repeat(n_rows)

    def velocity(state: Tensor, time: float) -> Tensor:
        times = state.new_full((n_rows * state.shape[0],), time)
        stacked = network(state.repeat(n_rows, 1), times, all_codes, all_values, known)
        total = torch.zeros_like(state)
        for (_, coefficient), part in zip(plan.rows, stacked.chunk(n_rows), strict=True):
            total = torch.add(total, part, alpha=coefficient)
        return total

    return velocity

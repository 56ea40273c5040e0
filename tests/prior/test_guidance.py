from __future__ import annotations

import math

import pytest
import torch

from scldm.errors import UserError
from scldm.prior.guidance import Guidance, guided_field
from scldm.prior.solvers import euler, time_grid

NAMES = ("cell_type", "batch", "age")
NAN = math.nan


class Spy:
    """Network whose velocity is a different power of ten for every attribute it sees, plus one, times the state."""

    def __init__(self):
        self.rows = []

    def __call__(self, state, time, categorical, continuous, depth_known=None):
        self.rows.append(state.shape[0])
        self.depth_known, self.time = depth_known, time
        seen = torch.cat([categorical >= 0, ~continuous.isnan()], dim=1).float()
        return state * (1 + seen @ torch.tensor([1.0, 10.0, 100.0]))[:, None]


@pytest.fixture
def cells():
    """Two cells with all three attributes."""
    return torch.tensor([[0, 2], [1, 0]]), torch.tensor([[0.5], [-1.0]])


STATE = torch.tensor([[1.0, 2.0], [3.0, -1.0]])


@pytest.mark.parametrize(
    ("guidance", "given", "rows"),
    [
        (Guidance.joint(1.0), NAMES, (((0, 1, 2), 1.0),)),
        (Guidance.joint(0.0), NAMES, (((), 1.0),)),
        (Guidance.joint(2.0), NAMES, (((), -1.0), ((0, 1, 2), 2.0))),
        (Guidance.joint(2.0), ["age", "cell_type"], (((), -1.0), ((0, 2), 2.0))),
        (Guidance.joint(2.0), [], (((), 1.0),)),
        (Guidance.additive(1.0), ["batch"], (((1,), 1.0),)),
        (Guidance.additive(1.0), NAMES, (((), -2.0), ((0,), 1.0), ((1,), 1.0), ((2,), 1.0))),
        (Guidance.additive({"batch": 3.0}), ["batch"], (((), -2.0), ((1,), 3.0))),
        (Guidance.additive({"batch": 3.0}), ["batch", "age"], (((), -3.0), ((1,), 3.0), ((2,), 1.0))),
        (Guidance.additive({"batch": 3.0}), [], (((), 1.0),)),
        (Guidance.additive({"batch": 0.0, "age": 1.0}), ["batch", "age"], (((2,), 1.0),)),
        (
            Guidance.additive({"cell_type": 0.1, "batch": 0.2, "age": 0.7}),
            NAMES,
            (((0,), 0.1), ((1,), 0.2), ((2,), 0.7)),
        ),
    ],
)
def test_plan(guidance, given, rows):
    plan = guidance.plan(NAMES, given)
    assert plan.rows == rows
    assert plan.evaluations == len(rows)
    assert sum(w for _, w in plan.rows) == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["joint", "additive"])
@pytest.mark.parametrize("name", NAMES)
def test_one_attribute_is_the_same_in_both_modes(mode, name):
    assert Guidance(mode, 1.7).plan(NAMES, [name]) == Guidance.joint(1.7).plan(NAMES, [name])


@pytest.mark.parametrize(
    ("guidance", "given", "factor", "n_rows"),
    [
        (Guidance.joint(1.0), NAMES, 112, 1),
        (Guidance.joint(0.0), NAMES, 1, 1),
        (Guidance.joint(3.0), NAMES, 1 + 3 * 111, 2),
        (Guidance.joint(3.0), ["cell_type", "age"], 1 + 3 * 101, 2),
        (Guidance.additive(1.0), NAMES, 112, 4),
        (Guidance.additive({"cell_type": 2.0, "age": 0.5, "batch": 0.0}), NAMES, 1 + 2 + 50, 3),
        (Guidance.joint(3.0), [], 1, 1),
    ],
)
def test_guided_velocity_in_one_call(cells, guidance, given, factor, n_rows):
    spy = Spy()
    velocity = guided_field(spy, *cells, guidance.plan(NAMES, given))(STATE, 0.25)
    torch.testing.assert_close(velocity, factor * STATE)
    assert spy.rows == [2 * n_rows]
    assert torch.equal(spy.time, torch.full((2 * n_rows,), 0.25))


def test_null_stays_null_in_every_row(cells):
    categorical, continuous = cells[0].clone(), cells[1].clone()
    categorical[0, 1], continuous[1, 0] = -1, NAN
    plan = Guidance.additive(2.0).plan(NAMES, NAMES)
    velocity = guided_field(Spy(), categorical, continuous, plan)(STATE, 0.0)
    torch.testing.assert_close(velocity, torch.tensor([[1 + 2 * 101.0], [1 + 2 * 11.0]]) * STATE)


def test_known_depth_is_passed_to_every_row(cells):
    spy = Spy()
    known = torch.tensor([True, False])
    guided_field(spy, *cells, Guidance.joint(2.0).plan(NAMES, NAMES), known)(STATE, 0.0)
    assert spy.depth_known.tolist() == [True, False, True, False]


def test_field_goes_straight_into_a_solver(cells):
    spy = Spy()
    field = guided_field(spy, *cells, Guidance.joint(0.0).plan(NAMES, NAMES))
    torch.testing.assert_close(euler(field, STATE, time_grid(2)), STATE * 1.5**2)
    assert spy.rows == [2, 2]


def test_plan_must_fit_the_cells(cells):
    with pytest.raises(ValueError, match="plan is for 2 attributes, the cells have 3"):
        guided_field(Spy(), *cells, Guidance.joint(1.0).plan(NAMES[:2], NAMES[:1]))


def test_parse_reads_what_users_write():
    assert Guidance.parse(2) == Guidance("joint", 2.0)
    assert Guidance.parse({"batch": 2}) == Guidance("additive", (("batch", 2.0),))
    assert Guidance.parse(Guidance.additive(3.0)) == Guidance.additive(3.0)
    assert hash(Guidance.parse({"batch": 2})) == hash(Guidance.additive({"batch": 2.0}))


@pytest.mark.parametrize("guidance", [Guidance.joint(2.0), Guidance.additive(1.5), Guidance.additive({"age": 2.0})])
def test_round_trip_through_plain_values(guidance):
    assert Guidance(**guidance.to_dict()) == guidance


@pytest.mark.parametrize("scale", [-0.5, NAN, math.inf])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(UserError, match="guidance of 'batch' must be a finite number of at least 0"):
        Guidance.additive({"batch": scale})


def test_wrong_requests_are_refused():
    with pytest.raises(UserError, match="at least 0, got -1"):
        Guidance.joint(-1.0)
    with pytest.raises(UserError, match="joint guidance takes one number"):
        Guidance("joint", {"batch": 2.0})
    with pytest.raises(UserError, match="unknown guidance mode 'add'"):
        Guidance("add", 2.0)
    with pytest.raises(UserError, match="guidance for unknown attribute 'cel_type'; did you mean 'cell_type'"):
        Guidance.additive({"cel_type": 2.0}).plan(NAMES, NAMES)
    with pytest.raises(UserError, match="unknown attribute 'bach'; did you mean 'batch'"):
        Guidance.joint(2.0).plan(NAMES, ["bach"])

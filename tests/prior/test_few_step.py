from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from scldm.config import PriorConfig
from scldm.prior.dit import DiT
from scldm.prior.few_step.correction import corrected
from scldm.prior.few_step.fit import fit_few_step, fit_to_prior
from scldm.prior.few_step.solver import FewStepSolver
from scldm.prior.few_step.stored import collect_few_step, few_step_tensors
from scldm.prior.guidance import Guidance, guided_field
from scldm.prior.latents import EncodedCells, LatentStore
from scldm.prior.solvers import euler, heun, midpoint, time_grid

VARIANCE, MEAN = torch.tensor([0.03, 0.2, 1.0, 5.0]), torch.tensor([1.0, 0.0, 0.0, 2.0])


def field(state, time):
    """Velocity that takes standard normal noise to a Gaussian, in closed form."""
    slope = (time * VARIANCE - (1 - time)) / (time**2 * VARIANCE + (1 - time) ** 2)
    return MEAN + slope * (state - time * MEAN)


def start_and_end(n_cells: int = 256):
    start = torch.randn(n_cells, 4, generator=torch.Generator().manual_seed(0))
    return start, MEAN + VARIANCE.sqrt() * start


def test_unfitted_solver_is_midpoint_or_euler():
    start, _ = start_and_end()
    for evaluations in (2, 4, 6):
        expected = midpoint(field, start, time_grid(evaluations // 2))
        torch.testing.assert_close(FewStepSolver.midpoint(evaluations)(field, start), expected)
    torch.testing.assert_close(FewStepSolver.midpoint(1)(field, start), euler(field, start, time_grid(1)))
    times = FewStepSolver.midpoint(5).times
    torch.testing.assert_close(times, torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8]))


@pytest.mark.parametrize(("evaluations", "gain"), [(2, 3), (3, 100), (4, 100)])
def test_fitted_coefficients_are_far_better_than_midpoint_on_cells_they_have_not_seen(evaluations, gain):
    fitted, error = fit_few_step(field, *start_and_end(), evaluations, iterations=40)
    start = torch.randn(500, 4, generator=torch.Generator().manual_seed(1))
    end = MEAN + VARIANCE.sqrt() * start

    def rms(solver):
        return float((solver(field, start) - end).square().mean().sqrt())

    assert rms(fitted) < rms(FewStepSolver.midpoint(evaluations)) / gain
    assert error == pytest.approx(rms(fitted), rel=0.5, abs=1e-4)


def test_evaluations_are_as_many_as_asked_for_and_the_first_is_at_the_start():
    fitted, _ = fit_few_step(field, *start_and_end(), 3, iterations=3)
    seen = []

    def counting(state, time):
        seen.append(time)
        return field(state, time)

    fitted(counting, start_and_end()[0])
    assert len(seen) == fitted.evaluations == 3
    assert seen[0] == 0.0
    assert torch.equal(fitted.weights, fitted.weights.tril())


def test_what_does_not_move_stays_exactly():
    fitted, _ = fit_few_step(field, *start_and_end(), 4, iterations=5)

    def still_last(state, time):
        velocity = field(state, time)
        velocity[:, -1] = 0.0
        return velocity

    start, _ = start_and_end()
    assert torch.equal(fitted(still_last, start)[:, -1], start[:, -1])


def test_fit_never_ends_worse_than_it_began():
    start, end = start_and_end()
    _, error = fit_few_step(field, start, end, 4, iterations=1)
    before = (FewStepSolver.midpoint(4)(field, start) - end).square().mean().sqrt()
    assert error <= before * (1 + 1e-5)


def test_fit_to_a_field_that_is_not_finite_leaves_the_coefficients_as_they_were():
    start, end = start_and_end()
    fitted, error = fit_few_step(field, start, torch.full_like(end, torch.nan), 4)
    assert not np.isfinite(error)
    torch.testing.assert_close(fitted.weights, FewStepSolver.midpoint(4).weights)
    torch.testing.assert_close(fitted.times, FewStepSolver.midpoint(4).times)


def gaussians(n_cells: int = 4000):
    """Starts, and end points of two solvers with different means and covariances; every other last number is given."""
    start, *ends = torch.randn(3, n_cells, 5, generator=torch.Generator().manual_seed(2)).unbind()
    mixing = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(3))
    for end, matrix, scale in zip(ends, mixing, (0.8, 1.3), strict=True):
        end[:, :4] = end[:, :4] @ (torch.eye(4) + 0.3 * matrix) + scale
        end[:, 4] *= scale
        end[::2, 4] = start[::2, 4]
    return start, *ends


GROUPS = (slice(0, -1), slice(-1, None))


def test_correction_gives_end_points_the_means_and_covariances_that_they_should_have():
    start, solved, end = gaussians()
    solver = corrected(FewStepSolver.midpoint(1), start, solved, end, GROUPS)
    # One Euler step along the difference is there.
    result = solver(lambda state, time: solved - state, start)
    torch.testing.assert_close(result[:, :4].mean(0), end[:, :4].mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cov(result[:, :4].T), torch.cov(end[:, :4].T), rtol=1e-3, atol=1e-3)
    free = torch.arange(len(start)) % 2 == 1
    torch.testing.assert_close(result[free, 4].var(), end[free, 4].var(), rtol=1e-3, atol=1e-3)
    assert torch.equal(result[~free, 4], start[~free, 4])
    # Neither part depends on the other.
    assert not solver.matrix[4, :4].any()
    assert not solver.matrix[:4, 4].any()


def test_correction_is_the_closed_form_of_commuting_covariances_and_nothing_where_nothing_is_wrong():
    start, solved, _ = gaussians()
    scales, shift = torch.tensor([0.5, 1.0, 2.0, 3.0, 1.5]), torch.arange(5.0)
    white = solved - solved.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T))).T
    solver = corrected(FewStepSolver.midpoint(1), start, white, white * scales + shift, (slice(None),))
    torch.testing.assert_close(solver.matrix, torch.diag(scales - 1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(solver.offset, shift, rtol=1e-3, atol=1e-3)
    same = corrected(FewStepSolver.midpoint(1), start, solved, solved, GROUPS)
    assert float(same.matrix.abs().max()) < 1e-5
    assert float(same.offset.abs().max()) < 1e-5


@pytest.mark.parametrize("n_free", [0, 1, 2])
def test_a_part_of_the_state_that_hardly_any_cell_moves_in_is_not_corrected(n_free):
    start, solved, end = gaussians(50)
    solved[n_free:, 4] = end[n_free:, 4] = start[n_free:, 4]
    solved[:n_free, 4], end[:n_free, 4] = torch.arange(3.0)[:n_free], 2 * torch.arange(3.0)[:n_free] + 1
    solver = corrected(FewStepSolver.midpoint(1), start, solved, end, GROUPS)
    assert solver.matrix.isfinite().all()
    assert solver.offset.isfinite().all()
    assert bool(solver.matrix[:4, :4].any())
    expected = (1.0, 1.0) if n_free == 2 else (0.0, 0.0)
    assert (float(solver.matrix[4, 4]), float(solver.offset[4])) == pytest.approx(expected)


def test_end_points_that_are_not_finite_are_not_corrected():
    start, solved, end = gaussians(20)
    end[3, 1] = torch.inf
    assert corrected(FewStepSolver.midpoint(1), start, solved, end, GROUPS).matrix is None


def test_end_points_that_are_all_the_same_are_not_corrected():
    start, solved, end = gaussians()
    group = GROUPS[0]
    solved = solved.clone()
    solved[:, group] = 1.0
    solver = corrected(FewStepSolver.midpoint(1), start, solved, end, GROUPS)
    assert (solver.matrix[group, group] == 0).all()
    assert (solver.offset[group] == 0).all()
    other = corrected(FewStepSolver.midpoint(1), start, gaussians()[1], end, GROUPS[1:])
    assert torch.equal(solver.matrix[GROUPS[1], GROUPS[1]], other.matrix[GROUPS[1], GROUPS[1]])


def test_coefficients_survive_being_saved_and_other_tensors_are_left():
    correction = torch.randn(2, 3, 3)
    solvers = [
        dataclasses.replace(FewStepSolver.midpoint(2), matrix=correction[0], offset=correction[1, 0]),
        FewStepSolver.midpoint(4),
    ]
    tensors = {"other": torch.ones(1), **few_step_tensors({(2, "plain"): solvers[0], (4, "guided"): solvers[1]})}
    found = collect_few_step(tensors, 3)
    assert sorted(found) == [(2, "plain"), (4, "guided")]
    assert list(tensors) == ["other"]
    assert torch.equal(found[4, "guided"].weights, solvers[1].weights)
    assert torch.equal(found[2, "plain"].times, solvers[0].times)
    assert torch.equal(found[2, "plain"].matrix, solvers[0].matrix)
    assert torch.equal(found[2, "plain"].offset, solvers[0].offset)
    assert found[4, "guided"].matrix is None


@pytest.mark.parametrize(
    "damage", ["missing", "shape", "dimensions", "name", "kind", "nan", "offset", "matrix", "size"]
)
def test_coefficients_that_do_not_belong_together_are_refused(damage):
    solver = dataclasses.replace(FewStepSolver.midpoint(3), matrix=torch.zeros(5, 5), offset=torch.zeros(5))
    tensors = few_step_tensors({(3, "plain"): solver})
    if damage == "missing":
        del tensors["few_step.3.plain.weights"]
    elif damage == "size":
        tensors |= {"few_step.3.plain.matrix": torch.zeros(4, 4), "few_step.3.plain.offset": torch.zeros(4)}
    elif damage == "offset":
        del tensors["few_step.3.plain.offset"]
    elif damage == "matrix":
        tensors["few_step.3.plain.matrix"] = torch.zeros(5, 4)
    elif damage == "shape":
        tensors["few_step.3.plain.weights"] = torch.zeros(2, 2)
    elif damage == "dimensions":
        tensors["few_step.3.plain.times"] = torch.tensor(0.0)
    elif damage == "nan":
        tensors["few_step.3.plain.weights"][1, 0] = torch.nan
    else:
        old, new = ("3", "2") if damage == "name" else ("plain", "other")
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    with pytest.raises(ValueError, match="do not belong together"):
        collect_few_step(tensors, 5)


def store_of(directory, attributes: bool) -> LatentStore:
    random = np.random.default_rng(0)
    state = random.normal(size=(60, 8)).astype(np.float32)
    block = EncodedCells(
        state,
        np.full_like(state, -5.0),
        random.normal(size=60).astype(np.float32),
        random.integers(0, 3, (60, int(attributes))),
        np.empty((60, 0), dtype=np.float32),
    )
    return LatentStore.write(directory, [block], 60)


@pytest.mark.parametrize("attributes", [True, False])
def test_solvers_of_a_prior_follow_its_plain_and_guided_fields_and_leave_it_as_it_was(tmp_path, attributes):
    torch.manual_seed(0)
    prior = DiT(2, 4, 16, 2, 2, (3,) if attributes else ())
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    prior.train()
    prior.final_modulation.weight.requires_grad_(False)
    config = PriorConfig(few_step_evaluations=(2, 4))
    fitted = fit_to_prior(prior, store_of(tmp_path, attributes), config, seed=0, seeding="64-bit")
    kinds = ("plain", "guided") if attributes else ("plain",)
    assert sorted(fitted) == sorted((n, kind) for n in (2, 4) for kind in kinds)
    assert prior.training
    assert [name for name, p in prior.named_parameters() if not p.requires_grad] == ["final_modulation.weight"]
    assert fit_to_prior(prior, store_of(tmp_path, attributes), PriorConfig(few_step_evaluations=()), 0, "64-bit") == {}

    prior.eval()
    codes, none = torch.randint(3, (100, int(attributes))), torch.empty(100, 0)
    start = torch.randn(100, prior.state_size)
    for kind, scale in zip(kinds, (1.0, 2.0), strict=False):
        plan = Guidance.joint(scale).plan(("a",), ("a",)) if attributes else Guidance.joint().plan((), ())
        velocity = guided_field(prior, codes, none, plan)
        with torch.no_grad():
            end = heun(velocity, start, time_grid(25))
            error, coarse = (
                (solver(velocity, start) - end).square().mean()
                for solver in (fitted[4, kind], FewStepSolver.midpoint(4))
            )
        assert error < coarse / 2


def test_heun_agrees_with_the_closed_form_that_the_tests_use():
    start, end = start_and_end()
    torch.testing.assert_close(heun(field, start, time_grid(200)), end, rtol=1e-3, atol=1e-3)

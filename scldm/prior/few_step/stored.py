"""Few-step solvers as named tensors, the form in which a model keeps them."""

from __future__ import annotations

from torch import Tensor

from scldm.prior.few_step.solver import KINDS, FewStepSolver, FewStepSolvers

__all__ = ["collect_few_step", "few_step_tensors"]

#: Fields of a solver, and what its tensors are called.
COEFFICIENTS = ("times", "weights", "matrix", "offset")


def few_step_tensors(solvers: FewStepSolvers) -> dict[str, Tensor]:
    """Name the coefficients of all solvers, to be saved; :func:`collect_few_step` reads them back."""
    named = {
        f"few_step.{evaluations}.{kind}.{name}": getattr(solver, name)
        for (evaluations, kind), solver in solvers.items()
        for name in COEFFICIENTS
    }
    return {name: tensor.cpu().contiguous() for name, tensor in named.items() if tensor is not None}


def collect_few_step(tensors: dict[str, Tensor], state_size: int) -> dict[tuple[int, str], FewStepSolver]:
    """Take all solvers out of saved tensors.

    Parameters
    ----------
    tensors
        By name; those of solvers are removed.
    state_size
        How many numbers the states of the prior have.

    Raises
    ------
    ValueError
        If the coefficients of one are incomplete, not finite, or of the wrong shape.
    """
    found = {}
    for name in [n for n in tensors if n.startswith("few_step.") and n.endswith(".times")]:
        prefix = name.removesuffix(".times")
        evaluations, _, kind = prefix.removeprefix("few_step.").partition(".")
        parts = [tensors.pop(f"{prefix}.{part}", None) for part in COEFFICIENTS]
        if kind not in KINDS or not _belong_together(evaluations, state_size, *parts):
            raise ValueError(f"the coefficients '{name}' do not belong together")
        found[int(evaluations), kind] = FewStepSolver(*parts)  # type: ignore[arg-type]
    return found


def _belong_together(
    evaluations: str,
    state_size: int,
    times: Tensor | None,
    weights: Tensor | None,
    matrix: Tensor | None,
    offset: Tensor | None,
) -> bool:
    if times is None or times.ndim != 1 or evaluations != str(len(times)):
        return False
    if weights is None or weights.shape != (len(times), len(times)) or (matrix is None) != (offset is None):
        return False
    if matrix is not None and matrix.shape != (state_size, state_size):
        return False
    if offset is not None and offset.shape != (state_size,):
        return False
    return all(bool(part.isfinite().all()) for part in (times, weights, matrix, offset) if part is not None)

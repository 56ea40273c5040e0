"""From a request to counts, chunk by chunk: noise, solver over the guided velocity, decoder, counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from einops import rearrange
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from scldm.errors import UserError
from scldm.generation.request import CHUNK_CELLS, GenerationRequest
from scldm.generation.writer import CellBlock
from scldm.prior.guidance import guided_field
from scldm.prior.registry import SOLVERS
from scldm.prior.solvers import time_grid
from scldm.prior.source import Noise
from scldm.prior.state import CellState
from scldm.seeds import torch_rng
from scldm.trained import TrainedModel
from scldm.vae.counts.sparse import SparseCounts

__all__ = ["check_solver_is_fitted", "generate"]

#: Standard deviations from the mean of the training cells; no cell is as far from it.
FARTHEST_STATE = 1e3


def check_solver_is_fitted(model: TrainedModel, request: GenerationRequest) -> None:
    """Raise a :class:`~scldm.errors.UserError` if the request names a few-step solver that the model does not have."""
    key = _few_step_key(model, request)
    if SOLVERS[request.solver].fitted and key not in model.few_step:
        fitted = ", ".join(str(n) for n, kind in sorted(model.few_step) if kind == key[1]) or "none"
        raise UserError(
            f"this model has no few-step solver of {request.steps} evaluations (it has: {fitted}); see "
            "prior.few_step_evaluations, or take another solver."
        )


def generate(
    model: TrainedModel,
    request: GenerationRequest,
    batch_size: int = 512,
    *,
    rank: int = 0,
    world_size: int = 1,
    on_cells: Callable[[int], Any] | None = None,
) -> Iterator[CellBlock]:
    """Generate the cells of a request, in order.

    Parameters
    ----------
    model, request
        Who generates, and what.
    batch_size
        Cells generated at a time, rounded down to whole chunks (at least one). It changes memory and, on an
        accelerator, speed, but not the cells.
    rank, world_size
        This process and the number of processes. Blocks are dealt in turn, gathered, and yielded in order on rank 0;
        the other ranks yield nothing.
    on_cells
        Called with the number of cells of every block.

    Raises
    ------
    UserError
        If the request names a few-step solver that the model does not have.
    """
    check_solver_is_fitted(model, request)
    per_block = max(1, batch_size // CHUNK_CELLS)
    starts = range(0, request.n_chunks, per_block)
    for first in range(0, len(starts), world_size):
        mine = first + rank
        block = None
        if mine < len(starts):
            chunks = range(starts[mine], min(starts[mine] + per_block, request.n_chunks))
            block = _block(model, request, chunks)
        gathered = [block] if world_size == 1 else _gather(block, rank, world_size)
        for block in gathered:
            if block is not None:
                yield block
                if on_cells is not None:
                    on_cells(block.counts.shape[0])


def _few_step_key(model: TrainedModel, request: GenerationRequest) -> tuple[int, str]:
    plan = request.guidance.plan(model.schema.attribute_names, request.given)
    return request.steps, "guided" if len(plan.rows) > 1 else "plain"


@torch.inference_mode()
def _block(model: TrainedModel, request: GenerationRequest, chunks: range) -> CellBlock:
    # Matrix products of other shapes round differently: on the CPU, where counts are promised to be bit-equal, a chunk
    # always goes by itself; on an accelerator all chunks of the block go together.
    groups = [[c] for c in chunks] if model.device.type == "cpu" else [list(chunks)]
    parts = [part for group in groups for part in _chunks(model, request, group)]
    counts = sp.vstack([p.counts for p in parts], format="csr")
    return CellBlock(counts, np.concatenate([p.latents for p in parts]))


def _chunks(model: TrainedModel, request: GenerationRequest, chunks: list[int]) -> Iterator[CellBlock]:
    """Generate some chunks at once."""
    device, seeding = model.device, model.config.seeding
    rngs = [torch_rng(request.seed, "sample", request.first_chunk + c, device, seeding) for c in chunks]
    # A short last chunk is filled up with copies of its last cell: no shape depends on the length of the request.
    rows = np.concatenate([_filled(request.chunk_cells(chunk)) for chunk in chunks])
    categorical = torch.from_numpy(request.categorical[rows]).to(device)
    continuous = torch.from_numpy(request.continuous[rows]).to(device)
    given_depth = None if request.depth is None else request.depth[rows]
    latents, depth = _solve(model, request, rngs, categorical, continuous, given_depth)

    if request.exact_depth:
        depth = np.maximum(1, np.round(depth))
    library_size = torch.from_numpy(depth).to(device)
    k = model.dispersion_attribute
    for number, (chunk, rng) in enumerate(zip(chunks, rngs, strict=True)):
        part = slice(number * CHUNK_CELLS, (number + 1) * CHUNK_CELLS)
        counts = model.vae.sample_counts(
            rearrange(latents[part], "b (m c) -> b m c", c=model.vae.config.latent_channels),
            library_size[part],
            rng,
            None if k is None else categorical[part, k],
            exact_depth=request.exact_depth,
        )
        cells = request.chunk_cells(chunk)
        yield _to_block(counts, latents[part], cells.stop - cells.start, request.genes)


def _solve(
    model: TrainedModel,
    request: GenerationRequest,
    rngs: list[torch.Generator],
    categorical: Int64[Tensor, "cells n_categorical"],
    continuous: Float[Tensor, "cells n_continuous"],
    given_depth: Float32[np.ndarray, " cells"] | None,
) -> tuple[Float[Tensor, "cells state"], Float32[np.ndarray, " cells"]]:
    """Take noise along the guided velocity to latents, in the coordinates of the autoencoder, and library sizes."""
    depths, source = model.schema.depth, Noise(model.prior.latent_size)
    start = CellState.concatenate([source.draw(CHUNK_CELLS, rng) for rng in rngs])
    if given_depth is not None:
        scores = torch.from_numpy(depths.to_normal(given_depth).astype(np.float32)).to(model.device)
        start = start.give_depth(scores, torch.ones(len(scores), dtype=torch.bool, device=model.device))
    plan = request.guidance.plan(model.schema.attribute_names, request.given)
    velocity = guided_field(model.prior, categorical, continuous, plan, start.depth_known)
    if SOLVERS[request.solver].fitted:
        packed = model.few_step[_few_step_key(model, request)](velocity, start.pack())
    else:
        packed = SOLVERS[request.solver](velocity, start.pack(), time_grid(request.steps))
    _check_arrived(model, request, packed)
    end, depth = CellState.unpack(packed), given_depth
    if depth is None:
        depth = depths.from_normal(end.depth.cpu().numpy()).astype(np.float32)
    return model.statistics.restore(end.latents), depth


def _check_arrived(model: TrainedModel, request: GenerationRequest, packed: Float[Tensor, "cells state"]) -> None:
    """Raise ``UserError`` if a state is nowhere near cells, or no number any more; asks a GPU once."""
    if bool((packed.abs() <= FARTHEST_STATE).all()):
        return
    guidance, advice = request.guidance, []
    if len(guidance.plan(model.schema.attribute_names, request.given).rows) > 1:
        advice.append("lower the guidance")
    numbers = [name for name in model.schema.continuous_names if name in request.given]
    if numbers:
        advice.append(f"ask for numbers of {', '.join(numbers[:3])} that are nearer to those of the training cells")
    raise UserError(
        f"the cells cannot be generated: with guidance {guidance.to_dict()['scales']} and {request.steps} steps of "
        f"{request.solver} their latents grow beyond all bounds; "
        + (f"{', or '.join(advice)}." if advice else "the weights of the prior are damaged.")
    )


def _filled(cells: slice) -> np.ndarray:
    return np.minimum(np.arange(cells.start, cells.start + CHUNK_CELLS), cells.stop - 1)


def _to_block(counts: SparseCounts, latents: Tensor, n_cells: int, genes: np.ndarray | None) -> CellBlock:
    matrix = counts.to_csr(n_cells)
    if genes is not None:
        matrix = matrix[:, genes]
        matrix.sort_indices()
    return CellBlock(matrix, latents[:n_cells].cpu().numpy())


def _gather(block: CellBlock | None, rank: int, world_size: int) -> list[CellBlock | None]:
    gathered: list[CellBlock | None] = [None] * world_size
    torch.distributed.gather_object(block, gathered if rank == 0 else None)
    return gathered

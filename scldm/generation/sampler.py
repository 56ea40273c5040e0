"""From a request to counts, chunk by chunk: noise, solver over the guided velocity, decoder, counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from einops import rearrange
from torch import Tensor

from scldm.data.depth import DepthStatistics
from scldm.errors import UserError
from scldm.generation.request import CHUNK_CELLS, GenerationRequest
from scldm.generation.writer import CellBlock
from scldm.nn.objective import step_generator
from scldm.prior.dit import DiT
from scldm.prior.few_step import FewStepSolvers
from scldm.prior.guidance import GuidancePlan, guided_field
from scldm.prior.latents import LatentStatistics
from scldm.prior.solvers import FEW_STEP, SOLVERS, time_grid
from scldm.vae.counts.sparse import SparseCounts
from scldm.vae.model import VAE

__all__ = ["Sampler"]


@dataclass(frozen=True, eq=False)
class Sampler:
    """The trained networks, ready to generate.

    Attributes
    ----------
    vae, prior
        On one device, in evaluation mode.
    statistics
        Standardisation of the latents, on the same device.
    depth
        Map between standardised depth and library size.
    attribute_names
        Of the model, categorical first.
    dispersion_attribute
        Position of the attribute that dispersion depends on, or None.
    few_step
        Solvers fitted to this prior.
    """

    vae: VAE
    prior: DiT
    statistics: LatentStatistics
    depth: DepthStatistics
    attribute_names: tuple[str, ...]
    dispersion_attribute: int | None = None
    few_step: FewStepSolvers = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.statistics.mean.device

    def check(self, request: GenerationRequest) -> None:
        """Raise a :class:`~scldm.errors.UserError` if the request names a few-step solver that was not fitted."""
        if request.solver == FEW_STEP and self._few_step_key(request) not in self.few_step:
            kind = self._few_step_key(request)[1]
            fitted = ", ".join(str(n) for n, other in sorted(self.few_step) if other == kind) or "none"
            raise UserError(
                f"this model has no few-step solver of {request.steps} evaluations (it has: {fitted}); see "
                "prior.few_step_evaluations, or take another solver."
            )

    def _few_step_key(self, request: GenerationRequest) -> tuple[int, str]:
        plan = request.guidance.plan(self.attribute_names, request.given)
        return request.steps, "guided" if len(plan.rows) > 1 else "plain"

    def blocks(
        self,
        request: GenerationRequest,
        batch_size: int = 512,
        *,
        rank: int = 0,
        world_size: int = 1,
        on_cells: Callable[[int], Any] | None = None,
    ) -> Iterator[CellBlock]:
        """Generate the request in order.

        Parameters
        ----------
        request
            What to generate.
        batch_size
            Cells generated at a time, rounded down to whole chunks (at least one). It changes memory and, on an
            accelerator, speed, but not the cells.
        rank, world_size
            This process and the number of processes. Blocks are dealt in turn, gathered, and yielded in order on
            rank 0; the other ranks yield nothing.
        on_cells
            Called with the number of cells of every finished round.
        """
        self.check(request)
        per_block = max(1, batch_size // CHUNK_CELLS)
        starts = range(0, request.n_chunks, per_block)
        for first in range(0, len(starts), world_size):
            mine = first + rank
            block = None
            if mine < len(starts):
                chunks = range(starts[mine], min(starts[mine] + per_block, request.n_chunks))
                block = self._block(request, chunks)
            gathered = [block] if world_size == 1 else _gather(block, rank, world_size)
            for block in gathered:
                if block is not None:
                    yield block
                    if on_cells is not None:
                        on_cells(block.counts.shape[0])

    @torch.inference_mode()
    def _block(self, request: GenerationRequest, chunks: range) -> CellBlock:
        # Matrix products of other shapes round differently: on the CPU, where counts are promised to be bit-equal, a
        # chunk always goes by itself; on an accelerator all chunks of the block go together.
        groups = [[c] for c in chunks] if self.device.type == "cpu" else [list(chunks)]
        plan = request.guidance.plan(self.attribute_names, request.given)
        parts = [part for group in groups for part in self._chunks(request, group, plan)]
        counts = sp.vstack([p.counts for p in parts], format="csr")
        return CellBlock(counts, np.concatenate([p.latents for p in parts]))

    def _chunks(self, request: GenerationRequest, chunks: list[int], plan: GuidancePlan) -> Iterator[CellBlock]:
        device = self.device
        generators = [step_generator(request.seed, "sample", request.first_chunk + c, device) for c in chunks]
        # A short last chunk is filled up with copies of its last cell: no shape depends on the length of the request.
        rows = np.concatenate([_filled(request.chunk_cells(chunk)) for chunk in chunks])
        categorical = torch.from_numpy(request.categorical[rows]).to(device)
        continuous = torch.from_numpy(request.continuous[rows]).to(device)
        state = torch.cat(
            [torch.randn(CHUNK_CELLS, self.prior.state_size, generator=g, device=device) for g in generators]
        )
        depth_known = None
        if request.depth is not None:
            score = self.depth.to_normal(request.depth[rows]).astype(np.float32)
            state[:, -1] = torch.from_numpy(score).to(device)
            depth_known = torch.ones(len(rows), dtype=torch.bool, device=device)
        velocity = guided_field(self.prior, categorical, continuous, plan, depth_known)
        if request.solver == FEW_STEP:
            state = self.few_step[self._few_step_key(request)](velocity, state)
        else:
            state = SOLVERS[request.solver](velocity, state, time_grid(request.steps))

        latents = self.statistics.restore(state[:, :-1])
        if request.depth is not None:
            depth = request.depth[rows]
        else:
            depth = self.depth.from_normal(state[:, -1].cpu().numpy()).astype(np.float32)
        library_size = torch.from_numpy(depth).to(device)
        k = self.dispersion_attribute
        for number, (chunk, generator) in enumerate(zip(chunks, generators, strict=True)):
            part = slice(number * CHUNK_CELLS, (number + 1) * CHUNK_CELLS)
            counts = self.vae.sample_counts(
                rearrange(latents[part], "b (m c) -> b m c", c=self.vae.config.latent_channels),
                library_size[part],
                generator,
                None if k is None else categorical[part, k],
            )
            cells = request.chunk_cells(chunk)
            yield _to_block(counts, latents[part], cells.stop - cells.start, request.genes)


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

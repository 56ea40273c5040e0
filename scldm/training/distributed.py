"""The processes of a run: how they find each other, and how they share batches and add up sums."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from scldm.errors import UserError
from scldm.nn.objective import Noise

__all__ = ["check_batch_can_be_cut", "make_accelerator", "of_main_process", "share_of_process", "sum_over_processes"]


def make_accelerator(precision: str = "auto", *, cpu: bool = False) -> Accelerator:
    """Return the accelerator of this process.

    Parameters
    ----------
    precision
        ``float32``, ``bf16``, or ``auto``: bf16 where a GPU has it.
    cpu
        Leave a GPU alone.

    Raises
    ------
    UserError
        If several processes were started but accelerate does not join them.
    """
    processes = started_processes()
    # Without a GPU, accelerate joins the processes of torchrun only when told that they compute on the CPU; otherwise
    # each of them would be a run of its own, writing to the same places. Apple's GPU counts as none: it lacks kernels
    # that the embedding bags and the counts need.
    cpu = cpu or not (torch.cuda.is_available() or torch.xpu.is_available())
    bf16 = precision == "bf16" or (
        precision == "auto" and not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    )
    # accelerate holds one precision for the whole Python process; a second model may ask for another.
    AcceleratorState._reset_state()
    try:
        accelerator = Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")
    except Exception as error:  # whatever the environment asks of it and it cannot do
        said = ", ".join(sorted(name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_", "DEEPSPEED_"))))
        raise UserError(
            f"accelerate cannot start: {error}; the environment sets {said or 'none of its variables (ACCELERATE_...)'}"
        ) from error
    if accelerator.num_processes != processes:
        raise UserError(
            f"{processes} processes were started, but each sees {accelerator.num_processes}; start them with "
            "'accelerate launch -m scldm' on GPUs, or 'torchrun -m scldm' on CPUs"
        )
    return accelerator


def started_processes() -> int:
    """Read from the environment how many processes were started together; raises ``UserError`` for half of one."""
    said = os.environ.get("WORLD_SIZE", "1")
    if not (said.isascii() and said.isdecimal() and len(said) < 9 and int(said)):
        raise UserError(f"the environment variable WORLD_SIZE is '{said}'; it must be a number of processes, or unset")
    if int(said) > 1:
        missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"the environment variable WORLD_SIZE is {said}, but {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not set: start several processes with torchrun or accelerate "
                "launch, or unset WORLD_SIZE for one"
            )
    return int(said)


def of_main_process(action: Callable[[], Any], accelerator: Accelerator) -> Any:
    """Let the main process do something that may be refused, and give all processes its answer.

    Raises
    ------
    UserError
        On the main process, if the action did; the others end with the same exit status and say nothing.
    """
    answer, refusal = None, None
    if accelerator.is_main_process:
        try:
            answer = action()
        except UserError as error:
            refusal = error
    if accelerator.num_processes > 1:
        shared = broadcast_object_list([answer if isinstance(answer, bool) else None, refusal is not None])
        if not accelerator.is_main_process:
            answer = shared[0]
            if shared[1]:
                sys.exit(2)
    if refusal is not None:
        raise refusal
    return answer


def check_batch_can_be_cut(batch_size: int, gradient_accumulation: int, accelerator: Accelerator) -> None:
    """Raise ``UserError`` unless processes and accumulated batches get equal parts of a batch."""
    pieces = accelerator.num_processes * gradient_accumulation
    if batch_size % pieces:
        raise UserError(
            f"the batch of {batch_size} cells cannot be cut into {pieces} equal parts "
            f"({accelerator.num_processes} processes x {gradient_accumulation} accumulated batches); "
            "use another batch size"
        )


def share_of_process(noise: Noise, process: int, n_processes: int) -> Noise:
    """Cut what was drawn for a whole batch down to the cells of one process."""
    return {
        name: drawn[len(drawn) * process // n_processes : len(drawn) * (process + 1) // n_processes]
        for name, drawn in noise.items()
    }


def sum_over_processes(values: Tensor, accelerator: Accelerator) -> Tensor:
    """Add up a tensor of the same shape over all processes; all of them get the sum."""
    return accelerator.reduce(values, reduction="sum") if accelerator.num_processes > 1 else values

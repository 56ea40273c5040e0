"""What torch keeps for the whole process belongs to the caller: here it is as we need it, and there as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["own_torch_defaults"]


@contextlib.contextmanager
def own_torch_defaults() -> Iterator[None]:
    """Make tensors float32 and on the CPU where nothing else is said, whatever the caller's defaults are.

    It is a decorator, too. The defaults are the caller's again when the block ends, however it ends.
    """
    import torch

    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    if dtype == torch.float32 and device.type == "cpu":
        yield
        return
    torch.set_default_dtype(torch.float32)
    torch.set_default_device("cpu")
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(device)

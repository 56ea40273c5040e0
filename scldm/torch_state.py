"""What torch keeps for the whole process belongs to the caller: here it is as we need it, and there as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["own_torch_defaults"]

#: Kinds of devices for which a caller may have switched on autocast.
AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


@contextlib.contextmanager
def own_torch_defaults() -> Iterator[None]:
    """Make tensors float32 and on the CPU where nothing else is said, and products as precise as their factors.

    Whatever the caller has set, gradients are kept where a network is trained, and autocast is on only where the
    configuration says so. It is a decorator, too. All is the caller's again when the block ends, however it ends.
    """
    import torch

    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as ours:
        if torch.get_default_device().type != "cpu":
            # As a context: it belongs to this thread alone, and leaves whatever context the caller is in as it is. Only
            # where it is needed, for it slows every call of torch.
            ours.enter_context(torch.device("cpu"))
        ours.enter_context(torch.inference_mode(False))
        ours.enter_context(torch.enable_grad())
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                ours.enter_context(torch.autocast(device, enabled=False))
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
            ours.callback(torch.set_default_dtype, dtype)
        yield

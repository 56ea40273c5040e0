"""Comparison of batches."""

from __future__ import annotations

import torch

from scldm.data import CellBatch


def is_same(a: CellBatch, b: CellBatch) -> bool:
    """Whether two batches hold the same, field by field."""
    pairs = list(zip(vars(a).values(), vars(b).values(), strict=True))
    return all(x is y is None or (x is not None and y is not None and torch.equal(x, y)) for x, y in pairs)

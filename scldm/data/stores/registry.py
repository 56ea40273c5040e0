"""Which kinds of stores there are, and which of them opens what."""

from __future__ import annotations

import pkgutil

import pandas as pd

from scldm.data.stores.base import CellData, Store
from scldm.errors import UserError

__all__ = ["STORES", "open_store"]

STORES: dict[str, str] = {
    "memory": "scldm.data.stores.memory:MemoryStore",
    "h5ad": "scldm.data.stores.h5ad:H5adStore",
}
"""Module and class of every kind of store that opens what users pass. They are asked in this order, and the two at the
end take every path: what is recognised by its name or its content goes before them."""


def open_store(data: CellData, layer: str | None, *, backed: bool) -> tuple[Store, pd.DataFrame]:
    """Open cells with the first kind of store that can; arguments, result and errors as :meth:`Store.open`."""
    for place in STORES.values():
        kind: type[Store] = pkgutil.resolve_name(place)
        if kind.can_open(data, backed=backed):
            return kind.open(data, layer)
    raise UserError(f"cells cannot be read from {type(data).__name__}; pass an AnnData, or the path of an .h5ad file")

"""A kind of store that the package does not know, added as anyone would add one."""

from __future__ import annotations

import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from jaxtyping import Int

from scldm.data import open_source
from scldm.data.stores import registry
from scldm.data.stores.base import CellData, Store
from scldm.data.stores.registry import open_store
from scldm.errors import UserError


class TextStore(Store):
    """A text file with one line of numbers per cell, and the label of the cell at its end."""

    where = "the text"

    def __init__(self, path: Path) -> None:
        header, *lines = path.read_text().splitlines()
        self.genes = pd.Index(header.split())
        self.lines = [line.split()[:-1] for line in lines]
        self.n_cells = len(lines)
        self.closed = 0

    @classmethod
    def can_open(cls, data: CellData, *, backed: bool) -> bool:
        return str(data).endswith(".txt")

    @classmethod
    def open(cls, data: CellData, layer: str | None) -> tuple[TextStore, pd.DataFrame]:
        labels = [line.split()[-1] for line in Path(str(data)).read_text().splitlines()[1:]]
        return cls(Path(str(data))), pd.DataFrame({"label": labels}, index=[f"cell{i}" for i in range(len(labels))])

    @property
    def locality(self) -> int:
        return 2

    def read(self, rows: Int[np.ndarray, " cells"]) -> sp.csr_matrix:
        return sp.csr_matrix(np.array([self.lines[row] for row in rows], dtype=float).reshape(-1, len(self.genes)))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "STORES", {"text": f"{__name__}:TextStore", **registry.STORES})
    (tmp_path / "cells.txt").write_text("A B C\n1 0 2 x\n0 4 1 y\n3 0 0 x\n0 7 0 y\n")
    return tmp_path / "cells.txt"


DENSE = np.array([[1, 0, 2], [0, 4, 1], [3, 0, 0], [0, 7, 0]])


@pytest.mark.parametrize("backed", [False, True])
def test_a_new_kind_of_store_is_one_class_and_one_line(text: Path, backed: bool) -> None:
    source = open_source(text, categorical="label", min_cells_per_gene=1, backed=backed)
    assert source.schema.genes == ("A", "B", "C")
    assert source.schema.categorical[0].counts == (2, 2)
    np.testing.assert_array_equal(source.batch(np.array([3, 0])).dense(3), DENSE[[3, 0]])
    np.testing.assert_array_equal(source.library_sizes(), DENSE.sum(axis=1))
    np.testing.assert_array_equal(source.gene_totals(), DENSE.sum(axis=0))
    assert source.store.closed == 1
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).gene_totals(), DENSE.sum(axis=0))


def test_what_a_store_does_not_override_works(text: Path, tmp_path: Path) -> None:
    """Rare genes, another schema, unpacking and the refusal of what is not counts."""
    source = open_source(text, min_cells_per_gene=2)
    assert source.schema.genes == ("A", "B", "C")
    schema = open_source(ad.AnnData(sp.csr_matrix(np.eye(3) + 1), var=pd.DataFrame(index=["C", "D", "A"]))).schema
    text.write_text("A B C\n1 0 2 x\n0 4 1 y\n")
    other = open_source(text, schema=schema)
    np.testing.assert_array_equal(other.library_sizes(), [3, 1])
    other.unpack(tmp_path / "counts")
    for cells in (other, other.unpacked(tmp_path / "counts")):
        batch = cells.batch(np.array([1, 0]))
        np.testing.assert_array_equal(batch.dense(3), [[1, 0, 0], [2, 0, 1]])
        assert batch.measured.tolist() == [[True, False, True]]
    text.write_text("A B C\n1 0 0.5 x\n0 4 1 y\n")
    with pytest.raises(UserError, match=r"in '.*cells.txt': the text holds values that are not integers"):
        open_source(text)


def test_the_first_kind_that_can_opens(adata: ad.AnnData, h5ad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {open_store(data, None, backed=False)[0].locality for data in (adata, h5ad, str(h5ad))}
    assert kinds == {None}
    assert open_store(h5ad, None, backed=True)[0].locality > 1
    monkeypatch.setattr(registry, "STORES", {})
    with pytest.raises(UserError, match="cells cannot be read from AnnData; pass an AnnData, or the path"):
        open_source(adata)

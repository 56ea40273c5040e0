from __future__ import annotations

import socket
import warnings

import numpy as np
import pytest
import scanpy
import scipy.sparse as sp

from scldm.data import load_demo


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the demo data were looked for on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("no_network")
def test_the_demo_is_integer_counts_and_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = load_demo()
    assert adata.shape == (700, 765)
    assert sp.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.float32
    assert adata.X.has_canonical_format
    assert (adata.X.data == np.rint(adata.X.data)).all()
    assert adata.X.data.min() == 1
    assert np.median(adata.X.sum(axis=1).A1) == 653
    assert list(adata.obs.columns) == ["cell_type", "phase"]
    assert [len(adata.obs[c].cat.categories) for c in adata.obs] == [10, 3]
    assert "CD3D" in adata.var_names


def test_the_counts_give_back_the_log_normalised_values() -> None:
    shipped = scanpy.datasets.pbmc68k_reduced().raw.X.toarray()
    counts = load_demo().X.toarray()
    # The scale of each cell is not known: its own genes other than these were part of it.
    scale = np.expm1(shipped).sum(axis=1, keepdims=True) / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.log1p(counts * scale), shipped, atol=2e-3)

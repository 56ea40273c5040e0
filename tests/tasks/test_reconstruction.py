from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import tiny

from scldm.errors import UserError
from scldm.tasks import reconstruction as module
from scldm.tasks.reconstruction import reconstruct


def totals(cells):
    return np.asarray(cells.X.sum(axis=1)).ravel()


def test_cells_keep_their_labels_their_genes_and_their_depth(trained):
    real = tiny.tiny_adata()
    redrawn = reconstruct(trained.trained, real, seed=1)
    assert redrawn.obs.equals(real.obs)
    assert redrawn.var_names.tolist() == list(trained.schema.genes)
    assert redrawn.X.dtype == np.float32
    assert (redrawn.X.data == np.round(redrawn.X.data)).all()
    # Counts add noise to the depth of a cell, but no cell's is drawn from another's.
    assert np.corrcoef(totals(real), totals(redrawn))[0, 1] > 0.8
    assert totals(redrawn).mean() == pytest.approx(totals(real).mean(), rel=0.05)
    means = [np.asarray(cells.X.mean(axis=0)).ravel() for cells in (real, redrawn)]
    assert np.corrcoef(*means)[0, 1] > 0.9


def test_the_seed_decides_and_the_order_of_the_genes_does_not(trained):
    real = tiny.tiny_adata(n_cells=40)
    one, two, other = (reconstruct(trained.trained, real, seed=seed).X.toarray() for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    turned = real[:, ::-1].copy()
    turned.layers["counts"], turned.X = turned.X.copy(), turned.X.log1p()
    np.testing.assert_array_equal(reconstruct(trained.trained, turned, layer="counts", seed=1).X.toarray(), one)


def test_batches_are_drawn_independently(trained, monkeypatch):
    monkeypatch.setattr(module, "BATCH_CELLS", 20)
    real = tiny.tiny_adata()[:20]
    real = ad.concat([real, real, real[:10]], index_unique="-")
    redrawn = reconstruct(trained.trained, real).X.toarray()
    assert redrawn.shape == (50, 60)
    assert (redrawn[:20] != redrawn[20:40]).any()


def test_an_untrained_model_has_nothing_to_reconstruct_with():
    with pytest.raises(UserError, match="not been trained"):
        _ = tiny.tiny_model().trained

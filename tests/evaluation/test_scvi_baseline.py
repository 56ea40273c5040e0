"""scVI: what can be said without scvi-tools, and, where it is installed, what it generates."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from scldm.errors import UserError
from scldm.evaluation.baselines import scvi as module
from scldm.evaluation.baselines.scvi import SCVI, is_installed


def two_kinds(n_cells: int = 240) -> tuple[csr_matrix, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n_cells)
    rates = np.where(labels[:, None] == 0, np.linspace(0.2, 8, 30), np.linspace(8, 0.2, 30))
    return csr_matrix(rng.poisson(rates * rng.lognormal(0, 0.4, (n_cells, 1))).astype(np.float32)), labels


def test_without_scvi_tools_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "is_installed", lambda: False)
    with pytest.raises(UserError, match="pip install scvi-tools"):
        SCVI.fit(*two_kinds(20))


@pytest.mark.slow
class TestWithScviTools:
    def test_cells_have_the_label_and_about_the_depth_of_their_donors(self):
        pytest.importorskip("scvi")
        counts, labels = two_kinds()
        fitted = SCVI.fit(counts, labels, n_epochs=500)
        assert is_installed()
        sampled, donors = fitted.sample(240, np.random.default_rng(0))
        assert sorted(donors) == list(range(240))
        assert sampled.dtype == np.float32
        assert (sampled.data == np.round(sampled.data)).all()
        for label in (0, 1):
            real, fake = (
                np.asarray(x.mean(axis=0)).ravel() for x in (counts[labels == label], sampled[labels[donors] == label])
            )
            assert np.corrcoef(real, fake)[0, 1] > 0.9
        depths = [np.asarray(x.sum(axis=1)).ravel() for x in (counts[donors], sampled)]
        assert np.corrcoef(*depths)[0, 1] > 0.6

    def test_seeds_decide_and_the_state_of_others_is_left_alone(self):
        pytest.importorskip("scvi")
        counts, labels = two_kinds(60)
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        numbers, numpy_numbers = random.getstate(), np.random.get_state()[1].tolist()
        level = logging.getLogger("lightning.pytorch").level
        one, two, other = (SCVI.fit(counts, labels, n_epochs=2, seed=seed) for seed in (1, 1, 2))
        draws = [f.sample(50, np.random.default_rng(0))[0].toarray() for f in (one, two, other)]
        torch.testing.assert_close(torch.rand(3), expected)
        assert random.getstate() == numbers
        assert np.random.get_state()[1].tolist() == numpy_numbers
        assert logging.getLogger("lightning.pytorch").level == level
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).any()

    def test_more_than_ten_labels_and_an_empty_cell_keep_their_codes(self):
        pytest.importorskip("scvi")
        counts = np.random.default_rng(0).poisson(2.0, size=(144, 12)).astype(np.float32)
        labels = np.repeat(np.arange(12), 12)
        # every label has a gene of its own
        counts[np.arange(144), labels] += 60
        counts[5] = 0
        fitted = SCVI.fit(csr_matrix(counts), labels, n_epochs=1500)
        sampled, donors = fitted.sample(144, np.random.default_rng(0))
        kept = donors != 5
        assert (sampled.toarray()[kept].argmax(axis=1) == labels[donors[kept]]).mean() > 0.85
        assert sampled[donors == 5].sum() == 0

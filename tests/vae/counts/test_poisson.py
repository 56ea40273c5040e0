from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from scipy import stats

from scldm.data.batch import CellBatch
from scldm.vae.counts.poisson import Poisson

N_GENES = 30


def test_poisson_is_the_dense_sum_of_scipy():
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.3, 20.0, (6, N_GENES)))
    counts[0, :3] = (1, 40_000, 0)
    counts[5] = 0
    counts[5, 2] = 1
    batch = CellBatch.from_csr(sp.csr_matrix(counts))
    log_rates = (2 * torch.randn(6, N_GENES, generator=torch.Generator().manual_seed(0))).log_softmax(-1)
    mean = (log_rates.double().exp() * batch.library_size[:, None].double()).numpy()
    expected = -stats.poisson(mean).logpmf(counts).sum(1)
    ours = Poisson(N_GENES).negative_log_likelihood({"log_rate": log_rates}, batch).numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-5)

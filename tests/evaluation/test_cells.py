import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from scldm.evaluation.cells import Cells, gene_means, log1p_cp10k


def zero_fractions(counts: csr_matrix) -> np.ndarray:
    return Cells(counts, pd.RangeIndex(counts.shape[1]), pd.DataFrame(index=range(counts.shape[0]))).zero_fractions


def test_means_and_zero_fractions_by_hand():
    matrix = np.array([[0, 1, 4], [0, 3, 0], [0, 0, 2], [0, 4, 0]], dtype=np.float32)
    np.testing.assert_allclose(gene_means(csr_matrix(matrix)), [0, 2, 1.5])
    np.testing.assert_allclose(zero_fractions(csr_matrix(matrix)), [1, 0.25, 0.5])


def test_a_stored_zero_is_a_zero():
    matrix = csr_matrix(np.array([[1.0, 2.0], [3.0, 4.0]]))
    matrix.data[0] = 0.0
    np.testing.assert_allclose(zero_fractions(matrix), [0.5, 0.0])


def test_log1p_cp10k_by_hand_and_of_an_empty_cell():
    counts = csr_matrix(np.array([[1, 0, 3], [0, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(log1p_cp10k(counts).toarray(), [[np.log1p(2500), 0, np.log1p(7500)], [0, 0, 0]])

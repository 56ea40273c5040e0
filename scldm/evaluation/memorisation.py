"""Are generated cells copies of training cells? Distances, exact copies, and what an attacker could find out."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt64
from scipy.sparse import csr_matrix, vstack

from scldm.evaluation.cells import Cells
from scldm.evaluation.depths import weighted_quantiles
from scldm.evaluation.neighbours import nearest
from scldm.evaluation.space import FeatureSpace

__all__ = ["NEAR", "attack_scores", "cell_hashes", "copied", "near_shares"]

# A cell is a near duplicate when only 1 % of real cells that no generator has seen lie as close to a training cell.
NEAR = 0.01


def cell_hashes(counts: csr_matrix) -> UInt64[np.ndarray, " cells"]:
    """Compute one 64-bit number per cell that is equal for cells with equal counts in every gene.

    The sum over genes of count times a fixed random number, modulo 2^64; the order of the entries and stored zeros do
    not matter. Different cells get equal numbers with a probability of about 1e-19 per pair.
    """
    keys = np.random.default_rng(0).integers(0, 2**64, counts.shape[1], dtype=np.uint64) | np.uint64(1)
    exact = csr_matrix((counts.data.astype(np.uint64), counts.indices, counts.indptr), shape=counts.shape)
    return np.asarray(exact @ keys)


def copied(system: csr_matrix, training: csr_matrix) -> Bool[np.ndarray, " cells"]:
    """Find the cells whose counts equal those of a training cell in every gene."""
    return np.isin(cell_hashes(system), cell_hashes(training))


def near_shares(
    system: Float[np.ndarray, " cells"],
    reference: Float[np.ndarray, " reference_cells"],
    system_weights: Float[np.ndarray, "resamples cells"],
    reference_weights: Float[np.ndarray, "resamples reference_cells"],
) -> tuple[float, Float[np.ndarray, " resamples"]]:
    """Compute the share of cells that lie nearer to a training cell than 99 % of the reference cells do.

    The threshold is the 1 % quantile of the reference cells' distances at position 0.01 (n + 1), so that 1 % of other
    real cells are expected below it. With fewer than 99 reference cells it is the smallest distance, below which
    1 / (n + 1) are expected.

    Parameters
    ----------
    system, reference
        Distance of every cell to its nearest training cell.
    system_weights, reference_weights
        How often every cell is in every resample.

    Returns
    -------
    The share and its replicates.
    """
    threshold = np.quantile(reference, NEAR, method="weibull")
    thresholds = weighted_quantiles(reference, reference_weights, NEAR)
    total = np.maximum(system_weights.sum(axis=1, dtype=np.float64), 1.0)
    near = (system_weights * (system <= thresholds[:, None])).sum(axis=1, dtype=np.float64)
    return float((system <= threshold).mean()), near / total


def attack_scores(release: Cells, members: Cells, others: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Score cells as an attacker would who has only generated cells and asks which cells a generator was trained on.

    The score is minus the distance to the nearest generated cell. The space is fitted on members and others together:
    cells lie differently in a space that was fitted on them, so both have to take the same part in it, and then an
    area of one half is exactly what a generator without knowledge of the members gets. A space fitted on the generated
    cells would not do: it inherits whatever noise of the members the generator has learnt, in which members stick out.

    Parameters
    ----------
    release
        The generated cells.
    members, others
        Cells that the generator was trained on, and real cells that it was not; equally many.

    Returns
    -------
    Scores of the members and of the others.
    """
    if len(members) != len(others):
        raise ValueError(f"{len(members)} members and {len(others)} others; as many are needed of both")
    both = csr_matrix(vstack([members.log1p_cp10k, others.log1p_cp10k]))
    space = FeatureSpace.fit(both)
    released = space.transform(release)
    members_score, others_score = (-nearest(space.transform(c), released).distances[:, 0] for c in (members, others))
    return members_score, others_score

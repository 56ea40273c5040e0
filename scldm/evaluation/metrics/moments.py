"""Moments of genes: mean, variance, zeros and dispersion, of the cells that are chosen in every draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from scldm.evaluation.compare import Masks, Rows

__all__ = ["GeneMoments", "binned_medians", "dispersion_trend_error", "sums_of", "zero_curve_error"]

# Relative to the mean square: below it a variance is rounding of single precision, not variation.
_NO_VARIANCE = 1e-5
# The dispersion of genes that vary no more than Poisson counts; 0.01 is a coefficient of variation of 10 %.
_MIN_DISPERSION = 0.01
# Genes in a bin, at least, for its median to say anything about the curve.
_MIN_GENES = 5
# The curve of zeros: from genes with a count per 30 cells (rarer ones are nearly all zeros, whatever the distribution)
# to genes with 30 counts per cell (hardly one is zero), four bins per factor of ten.
ZERO_CURVE_EDGES = 10.0 ** np.arange(-1.5, 1.51, 0.25)


@dataclass(frozen=True, eq=False)
class GeneMoments:
    """What is summed over the chosen cells for every gene, a row for every draw.

    Means and variances are of log1p CP10K; a gene that does not vary has variance 0. Zero fractions are shares of cells
    without a count. Mean UMI counts per cell and dispersions are of the genes at the positions `expressed` only.

    A dispersion is the variance beyond that of Poisson counts, given the depths of the cells, in units of the squared
    mean: 0 for a Poisson distribution, phi for a negative binomial with variance mu + phi mu^2, whatever the depths. It
    is found by the method of moments, so it may come out negative; it is NaN for a gene without counts.
    """

    means: Float[np.ndarray, "rows genes"]
    variances: Float[np.ndarray, "rows genes"]
    zero_fractions: Float[np.ndarray, "rows genes"]
    expressed: Int[np.ndarray, " expressed"]
    mean_counts: Float[np.ndarray, "rows expressed"]
    dispersions: Float[np.ndarray, "rows expressed"]

    @classmethod
    def compute(
        cls,
        counts: csr_matrix,
        log1p_cp10k: csr_matrix,
        chosen: Masks,
        expressed: Int[np.ndarray, " expressed"],
    ) -> GeneMoments:
        """Compute the moments for all draws at once, by products of the masks with the sparse matrices.

        With c ~ NB(s p, phi) at depth s, E[c (c - 1)] = (1 + phi) s^2 p^2. So the sums over cells of c, c (c - 1), s
        and s^2 give phi without fitting anything; only of `expressed`, the genes that are abundant enough.
        """
        depth = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        rows = chosen.astype(np.float64)
        n_cells = np.maximum(rows.sum(axis=1, keepdims=True), 1.0)
        means = sums_of(log1p_cp10k, chosen) / n_cells
        squares = sums_of(_map(log1p_cp10k, np.square), chosen) / n_cells
        variances = squares - means**2
        variances[variances < _NO_VARIANCE * squares] = 0.0
        positive = sums_of(_map(counts, lambda c: (c > 0).astype(np.float32)), chosen)
        counts = counts[:, expressed]
        total = sums_of(counts, chosen)
        pairs = sums_of(_map(counts, lambda c: c * (c - 1)), chosen)
        shape = (rows @ depth)[:, None] ** 2 / np.maximum(rows @ depth**2, 1.0)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            dispersions = pairs * shape / total**2 - 1.0
        # single precision is enough to keep: with all genes of a genome and many draws this is large
        return cls(
            means=means.astype(np.float32),
            variances=variances.astype(np.float32),
            zero_fractions=(1.0 - positive / n_cells).astype(np.float32),
            expressed=expressed,
            mean_counts=total / n_cells,
            dispersions=dispersions,
        )

    def log_dispersions(self, chosen: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "rows chosen"]:
        """Give log10 of the dispersions of some of the expressed genes; -2 for those that hardly have any."""
        return np.log10(np.fmax(self.dispersions[:, chosen], _MIN_DISPERSION))


def sums_of(matrix: csr_matrix, chosen: Masks) -> Float[np.ndarray, "rows genes"]:
    """Sum the cells of a matrix that are chosen, in every draw.

    In single precision, which takes half the time: counts up to 2^24 are exact, and rounding of others is far below
    what one cell makes.
    """
    return (chosen.astype(np.float32) @ matrix.astype(np.float32)).astype(np.float64)


def binned_medians(
    values: Float[np.ndarray, "rows genes"], bins: Int[np.ndarray, "rows genes"], n_bins: int
) -> tuple[Float[np.ndarray, "rows bins"], Int[np.ndarray, "rows bins"]]:
    """Compute the median of the genes in every bin (NaN for an empty one), row by row, and how many are in it.

    The bin of a gene may differ from row to row; genes with a bin below 0 or from `n_bins` on are left out.
    """
    n_rows = len(values)
    inside = (bins >= 0) & (bins < n_bins)
    key = (bins + n_bins * np.arange(n_rows)[:, None])[inside]
    order = np.lexsort((values[inside], key))
    ordered = values[inside][order]
    sizes = np.bincount(key, minlength=n_rows * n_bins)
    starts = np.cumsum(sizes) - sizes
    filled = sizes > 0
    medians = np.full(n_rows * n_bins, np.nan)
    low = ordered[(starts + (sizes - 1) // 2)[filled]]
    medians[filled] = 0.5 * (low + ordered[(starts + sizes // 2)[filled]])
    return medians.reshape(n_rows, n_bins), sizes.reshape(n_rows, n_bins)


def zero_curve_error(system: GeneMoments, reference: GeneMoments) -> Rows | None:
    """Compare the curves of zeros against abundance: the share of zeros that a gene of a given mean count has.

    Every side's genes are binned by their own mean count, so that a gene whose mean is wrong is no error here, but too
    many or too few zeros for the mean are. The error is the mean over bins of the absolute difference between median
    shares of zeros; None when no bin has enough genes on both sides.
    """
    n_bins = len(ZERO_CURVE_EDGES) - 1
    medians, sizes = [], []
    for side in (system, reference):
        bins = np.digitize(side.mean_counts, ZERO_CURVE_EDGES) - 1
        median, size = binned_medians(side.zero_fractions[:, side.expressed], bins, n_bins)
        medians.append(median)
        sizes.append(size)
    return _mean_over_bins(np.abs(medians[0] - medians[1]), np.minimum(*sizes) >= _MIN_GENES)


def dispersion_trend_error(
    system: GeneMoments, reference: GeneMoments, chosen: Int[np.ndarray, " chosen"], n_bins: int
) -> Rows | None:
    """Compare the trends of dispersion against abundance, in bins of equally many of the chosen expressed genes.

    The genes are in the order of their abundance. The error is the mean over bins of the absolute difference between
    median log10 dispersions; None with too few genes.
    """
    n_bins = min(n_bins, len(chosen) // _MIN_GENES)
    if n_bins == 0:
        return None
    shape = (len(system.means), len(chosen))
    bins = np.broadcast_to(np.arange(len(chosen)) * n_bins // len(chosen), shape)
    medians = [binned_medians(side.log_dispersions(chosen), bins, n_bins)[0] for side in (system, reference)]
    return np.abs(medians[0] - medians[1]).mean(axis=1)


def _mean_over_bins(errors: Float[np.ndarray, "rows bins"], counted: Bool[np.ndarray, "rows bins"]) -> Rows | None:
    """Average over the bins that count; None if a row has none."""
    n_bins = counted.sum(axis=1)
    if not n_bins.all():
        return None
    return np.where(counted, errors, 0.0).sum(axis=1) / n_bins


def _map(matrix: csr_matrix, function: Callable[[np.ndarray], np.ndarray]) -> csr_matrix:
    """Apply a function that keeps zeros to every entry."""
    return csr_matrix((function(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)

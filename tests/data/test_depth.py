from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scldm.data import DepthStatistics

library_sizes = st.lists(st.integers(1, 50_000), min_size=1, max_size=300)
few_distinct = st.lists(st.integers(1, 5), min_size=1, max_size=300)


@given(sizes=library_sizes | few_distinct)
def test_deeper_cells_have_higher_scores_and_scores_lead_back(sizes: list[int]) -> None:
    depth = DepthStatistics.from_library_sizes(sizes)
    distinct = np.unique(sizes)

    scores = depth.to_normal(distinct)

    assert np.isfinite(scores).all()
    # 201 quantiles cannot tell the ranks of more cells apart, but they never reverse or merge two depths.
    assert (np.diff(scores) > 0).all()
    np.testing.assert_allclose(depth.from_normal(scores), distinct, rtol=1e-9)


@given(sizes=library_sizes | few_distinct, scores=st.lists(st.floats(-40, 40), min_size=1, max_size=20))
def test_no_score_leads_outside_the_training_range(sizes: list[int], scores: list[float]) -> None:
    depth = DepthStatistics.from_library_sizes(sizes)
    result = depth.from_normal(np.sort(scores))
    assert result.min() >= min(sizes)
    assert result.max() <= max(sizes)
    assert (np.diff(result) >= 0).all()
    assert depth.minimum == min(sizes)
    assert depth.maximum == max(sizes)


def test_training_cells_have_standard_normal_scores() -> None:
    sizes = np.random.default_rng(0).lognormal(7.0, 0.5, 5000).round()
    scores = DepthStatistics.from_library_sizes(sizes).to_normal(sizes)
    assert abs(scores.mean()) < 0.01
    assert abs(scores.std() - 1) < 0.01
    assert np.abs(np.quantile(scores, [0.025, 0.5, 0.975]) - [-1.96, 0, 1.96]).max() < 0.03


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
def test_normal_variates_reproduce_heavily_tied_depths(weights: list[float]) -> None:
    random = np.random.default_rng(0)
    sizes = random.choice([3, 4, 5], p=weights, size=20_000)
    depth = DepthStatistics.from_library_sizes(sizes)
    drawn = depth.from_normal(random.standard_normal(20_000)).round()
    shares = [(drawn == value).mean() for value in (3, 4, 5)]
    np.testing.assert_allclose(shares, weights, atol=0.02)


def test_equally_deep_cells_all_have_the_score_zero() -> None:
    depth = DepthStatistics.from_library_sizes([500.0] * 7)
    assert depth.to_normal([10, 500, 9000]).tolist() == [0, 0, 0]
    assert depth.from_normal([-3.0, 0.0, 3.0]) == pytest.approx(500)
    assert depth.median == 500


def test_scores_keep_the_shape_of_what_they_are_computed_from() -> None:
    depth = DepthStatistics.from_library_sizes([1, 10, 100])
    assert depth.to_normal(10).shape == ()
    assert depth.to_normal(np.full((2, 3), 10)).shape == (2, 3)
    assert depth.from_normal(np.zeros((4, 1))).shape == (4, 1)
    assert depth.median == pytest.approx(10, abs=0.5)


def test_depths_beyond_the_training_range_have_the_scores_of_its_ends() -> None:
    depth = DepthStatistics.from_library_sizes([100, 200, 300])
    assert depth.to_normal([0, 1, 99]).tolist() == [depth.to_normal(100)] * 3
    assert depth.to_normal(1e9) == depth.to_normal(300)


def test_repeated_quantiles_given_by_hand_still_lead_back() -> None:
    depth = DepthStatistics(n_cells=100, quantiles=(5.0, 5.0, 7.0, 7.0, 7.0, 9.0))
    scores = depth.to_normal([5, 7, 9])
    assert (np.diff(scores) > 0).all()
    np.testing.assert_allclose(depth.from_normal(scores), [5, 7, 9])


@pytest.mark.parametrize("quantiles", [(5.0,), (0.0, 1.0), (3.0, 2.0)])
def test_impossible_statistics_are_refused(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="depth statistics need"):
        DepthStatistics(n_cells=10, quantiles=quantiles)

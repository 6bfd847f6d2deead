"""Intervals and shares against values worked out by hand."""

import numpy as np
import pytest
from rliable import metrics

from smac_lab.figures import stats


def test_interquartile_mean_by_hand():
    assert stats.interval([1.0, 2.0, 3.0, 100.0], "iqm").point == 2.5


def test_interval_of_a_mean_matches_its_normal_approximation():
    values = np.random.default_rng(2).normal(3.0, 2.0, size=400)
    point, low, high = stats.interval(values)
    error = 1.96 * values.std() / 20
    assert point == pytest.approx(values.mean())
    np.testing.assert_allclose([low, high], [point - error, point + error], atol=0.03)


def test_interval_of_two_seeds_is_their_range():
    """Each end comes up in a quarter of the resamples, more than the 2.5 % that are cut."""
    assert stats.interval([1.0, 2.0]) == (1.5, 1.0, 2.0)


def test_strata_resample_tasks_separately():
    """Tasks differ by a thousand, seeds not at all: resampling within tasks leaves no uncertainty."""
    scores = np.tile([0.0, 1000.0], (4, 1))
    assert stats.interval(scores) == (500.0, 500.0, 500.0)
    assert stats.interval(scores, "iqm") == (500.0, 500.0, 500.0)


def test_interval_repeats_and_leaves_the_global_generator_alone():
    values = np.random.default_rng(3).normal(size=(3, 4))
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert stats.interval(values) == stats.interval(values)
    assert stats.interval(values) != stats.interval(values, seed=1)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_one_seed_has_a_point_and_no_bounds():
    for values in ([2.0], [[1.0, 3.0]]):
        point, low, high = stats.interval(values)
        assert point == 2.0
        assert np.isnan([low, high]).all()
    assert np.isnan(stats.interval([np.nan, 1.0])).all()


@pytest.mark.parametrize(
    ("values", "options", "match"),
    [
        ([], {}, "not empty"),
        (np.zeros((1, 2, 3)), {}, "shape"),
        ([1.0], {"aggregate": "median"}, "median"),
        ([1.0], {"confidence": 1.5}, "confidence"),
    ],
)
def test_interval_rejects(values, options, match):
    with pytest.raises(ValueError, match=match):
        stats.interval(values, **options)


def test_gap_closed_by_hand():
    before = {"offline_context": [-7.0, 5.0, 0.0], "online_context": [-12.0, 5.0, 1.0]}
    after = {"offline_context": [-8.0, 6.0, 2.0], "online_context": [-9.0, 5.0, 2.0]}
    gap = stats.gap_closed(before, after)
    np.testing.assert_allclose(gap.before, [5.0, 0.0, -1.0])
    np.testing.assert_allclose(gap.after, [1.0, 1.0, 0.0])
    np.testing.assert_allclose(gap.closed, [0.8, np.nan, np.nan])  # no gap, or a negative one: nothing to close
    np.testing.assert_allclose(gap.recovered, [0.6, np.nan, np.nan])
    assert np.isnan(stats.gap_closed(before, after, least=5.0).closed).all()


def test_share_of_range():
    np.testing.assert_allclose(stats.share_of_range([-20.0, -12.0, -4.0], -20.0, -4.0), [0.0, 0.5, 1.0])
    assert np.isnan(stats.share_of_range([1.0, 2.0], 0.0, None)).all()
    assert np.isnan(stats.share_of_range(1.0, 2.0, 2.0))


def test_probability_of_improvement_counts_pairs() -> None:
    """Of nine pairs one is above, one is a tie and seven are below: (1 + 0.5) / 9; as rliable's own, without ties."""
    found = stats.probability_of_improvement([0.0, 1.0, 5.0], [5.0, 6.0, 4.0])
    assert found.point == pytest.approx(1.5 / 9)
    assert found.low <= found.point <= found.high
    x, y = np.array([[1.0, 9.0], [2.0, 8.0], [7.0, 3.0]]), np.array([[1.5, 2.5], [6.0, 8.5], [0.5, 0.1]])
    assert stats.probability_of_improvement(x, y).point == pytest.approx(metrics.probability_of_improvement(x, y))
    assert np.isnan(stats.probability_of_improvement([1.0], [0.0]).low)
    assert np.isnan(stats.probability_of_improvement([1.0, np.nan], [0.0, 1.0]).point)


def test_a_profile_is_the_share_above() -> None:
    np.testing.assert_allclose(stats.profile([0.1, 0.5, 0.5, 0.9], [0.0, 0.3, 0.5, 1.0]), [1.0, 0.75, 0.25, 0.0])


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 1), (5, 6), (7, 3)])
def test_the_interquartile_mean_is_that_of_rliable(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).normal(size=shape)
    assert stats.interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(scores), rel=1e-14)

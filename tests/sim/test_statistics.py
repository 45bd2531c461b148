"""Intervals of a mean hold it as often as they say."""

import numpy as np
import pytest

from sim.statistics import mean_interval


def test_interval_is_the_spread_of_the_mean():
    # 100 values of deviation 1: the mean's is 0.1, and 95 % lie within 1.96 of them.
    values = np.random.default_rng(1).standard_normal(100)
    values = (values - values.mean()) / values.std()
    low, high = mean_interval(values.tolist())
    assert low == pytest.approx(-0.196, abs=0.02)
    assert high == pytest.approx(0.196, abs=0.02)


def test_a_single_value_has_no_interval():
    assert np.isnan(mean_interval([3.0])).all()


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 30, 31, 100])
def test_the_interval_of_few_values_holds_the_mean_in_95_of_100_cases(count):
    # 2,000 draws: the share of a probability of 0.95 has a deviation of 0.005.
    draws = np.random.default_rng(0).standard_normal((2000, count))
    held = [low <= 0 <= high for low, high in map(mean_interval, draws)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)
    assert mean_interval([1.0, 3.0]) == pytest.approx((2 - 12.706, 2 + 12.706))

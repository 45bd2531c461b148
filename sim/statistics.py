"""Intervals of the mean of a few values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SURE = (2.5, 97.5)  # percent
# 97.5 % quantile of Student's t, by the number of values. Of so few the bootstrap knows their
# lowest and highest one, between which the mean of many is much less often: in half of the cases
# for two values, in three of four for three.
STUDENT = {2: 12.706, 3: 4.303}


def mean_interval(
    values: Sequence[float] | NDArray[np.float64], draws: int = 10_000
) -> tuple[float, float]:
    """Returns the 95 % interval of the mean; deterministic.

    Args:
        values: (n,) independent ones.
        draws: of the bootstrap; for two and three values it is Student's interval.

    Returns:
        Lowest and highest; nan for a single value, which has none.
    """
    data = np.asarray(values, np.float64)
    if len(data) < 2:
        return float("nan"), float("nan")
    if len(data) in STUDENT:
        middle, half = data.mean(), STUDENT[len(data)] * data.std(ddof=1) / np.sqrt(len(data))
        return float(middle - half), float(middle + half)
    rng = np.random.default_rng(0)
    means = data[rng.integers(len(data), size=(draws, len(data)))].mean(axis=1)
    low, high = np.percentile(means, SURE)
    return float(low), float(high)

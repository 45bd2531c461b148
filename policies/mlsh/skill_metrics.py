"""Metrics of skills: mutual information of skill and task, distance of skills; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SEEN = 256  # observations on which skills are compared


def mutual_information(usage: NDArray[np.float64]) -> float:
    """I(skill; task) in bits: 1 if two skills separate two tasks, 0 if all are used alike.

    Args:
        usage: (tasks, K) fraction of ticks that each skill drives on each task; tasks count alike.
    """
    if len(usage) < 2:
        return 0.0
    return float(_entropy(usage.mean(axis=0)) - np.mean([_entropy(row) for row in usage]))


def min_skill_distance(
    skills: Sequence[Callable[[NDArray[np.float32]], NDArray[np.float32]]],
    observations: NDArray[np.float32],
) -> float:
    """Distance between the actions of the nearest pair of skills, as a fraction of the largest.

    Args:
        skills: observations (n, O) to actions (n, A), of which -1 to 1 counts.
        observations: (n, O), of which `SEEN` are looked at.

    Returns:
        Half the root mean square difference: 0 for skills that act alike, 1 for opposite ones at
        their limits; 0 for a single skill.
    """
    rows = np.unique(np.linspace(0, len(observations) - 1, SEEN).astype(np.intp))
    actions = [np.clip(skill(observations[rows]), -1, 1) for skill in skills]
    apart = (np.sqrt(np.mean((a - b) ** 2)) / 2 for a, b in combinations(actions, 2))
    return float(min(apart, default=0.0))


def _entropy(p: NDArray[np.float64]) -> float:
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())

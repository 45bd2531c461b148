"""Metrics of skills: information on task and state, distance of skills; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SEEN = 256  # observations on which skills are compared
LEARNED = 0.2  # normalized return below which nothing has been learned yet
BY_STATE = 0.3  # bits on the state from which on the use of a skill depends on it; noise has 0.24


def mutual_information(usage: NDArray[np.float64]) -> float:
    """I(skill; task) in bits: 1 if two skills separate two tasks, 0 if all are used alike.

    Args:
        usage: (tasks, K) fraction of ticks that each skill drives on each task; tasks count alike.
    """
    if len(usage) < 2:
        return 0.0
    bits = _entropy(usage.mean(axis=0)) - np.mean([_entropy(row) for row in usage])
    return max(0.0, float(bits))  # not below zero by rounding


def binary_entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of each probability and its complement, bits."""
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(-(q * np.log2(q) + (1 - q) * np.log2(1 - q)))


def state_information(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) bits that choosing a skill or not tells about the state that the choice was made from.

    Zero for a skill that is never chosen, always, or as often in one state as in another; one for
    a skill that is certain in half of the states and excluded in the others.

    Args:
        chance: (n, K) probability of each skill in n states.
    """
    if not len(chance):
        return np.zeros(chance.shape[1])
    bits = binary_entropy(chance.mean(axis=0)) - binary_entropy(chance).mean(axis=0)
    return np.asarray(bits)


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

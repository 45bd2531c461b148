"""Rewards in units of the return that a step can add on its task, by the task's reference returns.

The result of a training then depends neither on the unit of a family's rewards nor on a constant
that is added in each tick, such as an alive bonus or a cost of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.envs.reference_returns import ReferenceReturns

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class RewardNormalization:
    """Mean reward of random actions and its distance to the optimum, per tick of each task."""

    random: NDArray[np.float64]  # (tasks,)
    span: NDArray[np.float64]  # (tasks,)
    horizon: float  # ticks of an episode

    @classmethod
    def of(cls, reference_returns: Sequence[ReferenceReturns], ticks: int) -> RewardNormalization:
        """Returns that of tasks with these returns per episode of `ticks` ticks."""
        span = [r.optimum - r.random if r.tell_apart else 1.0 for r in reference_returns]
        random = np.array([r.random for r in reference_returns], np.float64)
        return cls(random / ticks, np.array(span, np.float64) / ticks, float(ticks))

    @classmethod
    def none(cls, tasks: int) -> RewardNormalization:
        """Returns one that leaves rewards as they are."""
        return cls(np.zeros(tasks), np.ones(tasks), 1.0)

    def returns(self, episode: NDArray[np.float64], task: int) -> NDArray[np.float64]:
        """Normalized returns of whole episodes: 0 for random actions, 1 for the optimum."""
        scores = episode / (self.span[task] * self.horizon) - self.random[task] / self.span[task]
        return np.asarray(scores)

    def rewards(self, reward: Float32, task: NDArray[np.intp]) -> Float32:
        """Rewards (T, B) of simulations with tasks (B,): on average 0 for random actions."""
        centered = reward - self.random[task]
        return np.asarray(centered / self.span[task], np.float32)

    def terminal(self, task: NDArray[np.intp], gamma: float, ticks: int) -> Float32:
        """(B,) value of a terminated episode, which has no further rewards, in normalized rewards.

        Args:
            task: (B,) of each simulation.
            gamma: discount per step; 1: the steps of a whole episode are counted.
            ticks: of a step.
        """
        steps = 1 / (1 - gamma) if gamma < 1 else self.horizon / ticks
        return np.asarray(-self.random[task] / self.span[task] * steps, np.float32)

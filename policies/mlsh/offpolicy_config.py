"""Settings of the off-policy learner of masters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Positive

Count = Annotated[int, Field(gt=0)]
# Of masters for new tasks; a uniform one does not learn, its decisions are for recordings.
Learner = Literal["ppo", "q", "uniform"]


@dataclass(frozen=True, config=STRICT)
class OffPolicyConfig:
    """Value iteration over all decisions of a task (policies/offpolicy)."""

    horizon: Positive = 5.0  # time constant of the discount, in decisions
    products: Count = 400  # of two elements of the observation, at most
    features: Count = 64  # random features of the observation
    random_share: Positive = 0.1  # prior variance of their part, relative to that of the rest
    gain: Positive = 1.5  # how fast features change with the normalized observation
    prior: Positive = 3.0  # prior variance of the values, in units of their variance
    advantage: Positive = 0.3  # prior variance of the differences between skills, relative to it
    noise: Positive = 0.3  # standard deviation of the targets, in units of the values' deviation
    spread: Positive = 1.0  # of the samples, in standard deviations of the prior
    members: Annotated[int, Field(gt=1)] = 8  # samples of the posterior, the mean included
    iterations: Count = 30  # of value iteration per update
    # Part of the decisions that is random: in the first episode, and from the last of
    # `epsilon_episodes` on; in between it falls linearly.
    initial_epsilon: Annotated[float, Field(ge=0, lt=1)] = 0.5
    epsilon: Annotated[float, Field(ge=0, lt=1)] = 0.1
    epsilon_episodes: Count = 26

    def random_part(self, episode: int) -> float:
        """Part of the decisions of a task's episode, counted from 0, that is random."""
        passed = min(1.0, episode / self.epsilon_episodes)
        return self.initial_epsilon + (self.epsilon - self.initial_epsilon) * passed

"""Settings of the off-policy learner of masters, `mlsh finetune --set offpolicy.NAME=VALUE`.

They are not in `policies/offpolicy`, because `config.py`, in a lower layer, reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface import STRICT, Integer, Number, Positive

Count = Annotated[Integer, Field(gt=0)]
# Of masters for new tasks; a uniform one does not learn, its decisions are for recordings.
Learner = Literal["ppo", "q", "uniform"]


@dataclass(frozen=True, config=STRICT)
class OffPolicyConfig:
    """Value iteration over all decisions of a task (policies/offpolicy)."""

    horizon: Positive = 5.0  # time constant of the discount, in decisions
    products: Count = 400  # largest number of products of two elements of the observation
    features: Count = 64  # number of random features of the observation
    random_share: Positive = 0.1  # prior variance of the random features, relative to the others
    gain: Positive = 1.5  # scale of the normalized observation in the random features
    prior: Positive = 3.0  # prior variance of the values, relative to their variance
    advantage: Positive = 0.3  # prior variance of differences between skills, relative to `prior`
    noise: Positive = 0.3  # standard deviation of the targets, relative to that of the values
    spread: Positive = 1.0  # scale of the posterior samples; 1: as the posterior
    members: Annotated[Integer, Field(gt=1)] = 8  # posterior samples, the mean included
    iterations: Count = 30  # iterations of value iteration per update
    # Fraction of the decisions of a task's first update that are random.
    initial_epsilon: Annotated[Number, Field(ge=0, le=1)] = 0.5
    # Fraction of the decisions that are random in updates that begin with episode
    # `epsilon_episodes` or a later one; at most `initial_epsilon`.
    epsilon: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    # Episodes in which `initial_epsilon` falls to `epsilon` linearly; all episodes of an update
    # have the fraction of its first one.
    epsilon_episodes: Count = 26

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if self.initial_epsilon < self.epsilon:
            raise ValueError(
                f"initial_epsilon {self.initial_epsilon:g} is below epsilon {self.epsilon:g}, so "
                "that the fraction of random decisions would rise; valid are values from "
                f"{self.epsilon:g} to 1"
            )
        return self

    def random_part(self, episode: int) -> float:
        """Fraction of random decisions of an update.

        Args:
            episode: number of the update's first episode of the task, counted from 0.
        """
        passed = min(1.0, episode / self.epsilon_episodes)
        return self.initial_epsilon + (self.epsilon - self.initial_epsilon) * passed

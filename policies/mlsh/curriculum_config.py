"""Settings of what becomes harder while the skills are trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface import STRICT, Integer, Number

MOST = 10**12  # steps


@dataclass(frozen=True, config=STRICT)
class CurriculumConfig:
    """A curriculum on the weights of a family's reward terms, and on how hard its episodes are."""

    # Factor of the negative weights of the reward terms at the first step; it grows linearly to 1.
    # A robot that stands finds its first step where costs of motion are small.
    cost_scale: Annotated[Number, Field(ge=0, le=1)] = 1.0
    # Environment steps after which the factor is 1.
    cost_steps: Annotated[Integer, Field(ge=0, le=MOST)] = 0

    # Environment steps over which the hardest episodes grow from the easiest ones to the hardest,
    # in a family with a difficulty, such as one on uneven ground. 0: all from the first step on.
    difficulty_steps: Annotated[Integer, Field(ge=0, le=MOST)] = 0

    # Environment steps over which episodes grow from the nominal model to the whole ranges of the
    # domain randomization. 0: the whole ranges from the first step on.
    randomization_steps: Annotated[Integer, Field(ge=0, le=MOST)] = 0

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.cost_scale < 1 and not self.cost_steps:
            raise ValueError(
                f"cost_scale {self.cost_scale:g} needs cost_steps, the steps after which it is 1"
            )
        if self.cost_steps and self.cost_scale == 1:
            raise ValueError(f"cost_steps {self.cost_steps} has no effect with cost_scale 1")
        return self

    def randomization_at(self, steps: int) -> float:
        """Part of the ranges that episodes draw from, 0 to 1."""
        return 1.0 if steps >= self.randomization_steps else steps / self.randomization_steps

    def difficulty_at(self, steps: int) -> float:
        """The hardest that an episode may be after a number of environment steps, 0 to 1."""
        return 1.0 if steps >= self.difficulty_steps else steps / self.difficulty_steps

    def cost_scale_at(self, steps: int) -> float:
        """Factor of the negative weights after this number of environment steps."""
        if steps >= self.cost_steps:
            return 1.0
        return self.cost_scale + (1.0 - self.cost_scale) * steps / self.cost_steps

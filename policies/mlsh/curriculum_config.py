"""Settings of what becomes harder while the skills are trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface import STRICT, Number

Progress = Annotated[Number, Field(ge=0, le=1)]  # part of the training's steps


def grown(progress: float, until: float) -> float:
    """Share of something that grows evenly from 0 to 1.

    Args:
        progress: part of the training's steps so far.
        until: part of the steps after which it is 1; with 0 it is from the first step on.
    """
    return 1.0 if progress >= until else progress / until


@dataclass(frozen=True, config=STRICT)
class CurriculumConfig:
    """Costs, difficulty of the episodes and randomization that grow over a training."""

    # Factor of what reward terms subtract, at the first step; it grows linearly to 1. A robot that
    # stands finds its first step where costs of motion are small.
    cost_scale: Progress = 1.0
    # Part of the training's steps after which the factor is 1.
    cost_until: Progress = 0.0
    # Part of the steps over which the hardest episodes grow from the easiest ones to the hardest,
    # in a family with a difficulty, such as one on uneven ground. 0: all from the first step on.
    difficulty_until: Progress = 0.0
    # Part of the steps over which episodes grow from the nominal model to the whole ranges of the
    # domain randomization. 0: the whole ranges from the first step on.
    randomization_until: Progress = 0.0

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.cost_scale < 1 and not self.cost_until:
            raise ValueError(
                f"cost_scale {self.cost_scale:g} needs cost_until, the part of the steps after "
                "which it is 1"
            )
        if self.cost_until and self.cost_scale == 1:
            raise ValueError(f"cost_until {self.cost_until:g} has no effect with cost_scale 1")
        return self

    def cost_scale_at(self, progress: float) -> float:
        """Factor of what reward terms subtract, after a part of the training's steps."""
        return self.cost_scale + (1.0 - self.cost_scale) * grown(progress, self.cost_until)

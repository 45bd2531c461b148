"""Settings of the noise with which skills explore."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from policies.mlsh.curriculum_config import Progress, grown
from sim.interface import STRICT, Number, Positive


@dataclass(frozen=True, config=STRICT)
class ExplorationConfig:
    """The noise of the skills' actions, which the mean action on a robot is without."""

    # Correlation of the noise of a tick with that of the tick before. White noise, 0, moves a limb
    # to and fro in place; with more it goes somewhere.
    correlation: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    # Largest standard deviation of the skills' actions at last, in the units of a policy's output;
    # null: no limit. The limit falls linearly from the initial standard deviation. Where noise
    # stays large, a robot may walk by it, and stand without.
    final_std: Positive | None = None
    # Part of the training's steps after which the limit is `final_std`.
    std_until: Progress = 0.0

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.final_std is None) != (not self.std_until):
            final = "null" if self.final_std is None else f"{self.final_std:g}"
            raise ValueError(
                f"final_std {final} and std_until {self.std_until:g} belong together: "
                "both are set, or final_std is null and std_until 0"
            )
        return self

    def std_limit_at(self, progress: float, initial: float) -> float:
        """Largest standard deviation after a part of the training's steps; infinite without one.

        Args:
            progress: part of the steps so far.
            initial: standard deviation at the first step.
        """
        if self.final_std is None:
            return math.inf
        return initial + (self.final_std - initial) * grown(progress, self.std_until)

"""Two Targets: Moving Bandits for a robot that walks.

Two targets are seen from the robot, one counts, and which one is hidden: that is the task.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.parameter_types import Length
from sim.tasks.walking_goals import WalkingGoals


@dataclass(frozen=True, config=STRICT)
class TwoTargets(WalkingGoals, MovingBandits):
    """The task is the slot of the target that counts."""

    name: ClassVar[str] = "two_targets"

    half_width: Length = 2.0  # m, half the side of the square in which targets are drawn

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw targets uniformly in the square and any heading, independent of the task."""
        return self.begin(super().reset(task, rng), rng)

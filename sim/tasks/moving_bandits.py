"""Moving Bandits (Frans et al. 2017, section 6.1) on a robot that drives in the plane.

Two goals are seen, one counts, and which one is hidden: that is the task. Both goals are drawn
anew in every episode. The paper's arena of 400 units with steps of 20 becomes 2 m with 0.1 m.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.goals import GoalTask
from sim.tasks.parameter_types import Length, Shown


@dataclass(frozen=True, config=STRICT)
class MovingBandits(GoalTask):
    """The task is the slot of the goal that counts."""

    name: ClassVar[str] = "moving_bandits"

    shown: Shown = 2  # number of goals
    half_width: Length = 1.0  # m, half the side of the square in which goals are drawn

    @property
    def tasks(self) -> tuple[str, ...]:
        """goal-0, goal-1."""
        return tuple(f"goal-{i}" for i in range(self.shown))

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw goals uniformly in the square, independent of the task, which stays hidden."""
        goals = rng.uniform(-self.half_width, self.half_width, (self.shown, 2))
        return {"goals": goals, "slot": np.float64(task)}

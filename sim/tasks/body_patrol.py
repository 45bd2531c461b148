"""Body Patrol: Patrol for a robot that walks, with goals relative to its base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Count, Length
from sim.tasks.patrol import Patrol
from sim.tasks.walking_goals import WalkingGoals


@dataclass(frozen=True, config=STRICT)
class BodyPatrol(WalkingGoals, Patrol):
    """The task is the reward for an arrival at each of the two goals.

    The observation does not determine which goal was visited last. The heading of a robot that
    walks from goal to goal shows it, which is not so while decisions are random.
    """

    name: ClassVar[str] = "body_patrol"
    recommended: ClassVar[Mapping[str, Any]] = {
        **WalkingGoals.recommended,
        "mlsh.rollout_ticks": 1500,
    }

    ticks: Count = 1500  # length of an episode: 30 s at 50 Hz
    half_width: Length = 1.5  # m, half the side of the square in which goals are drawn
    separation: Length = 1.2  # m, the smallest distance between the two goals
    # Reward per tick in which the robot comes nearer at full speed; an arrival is rewarded with 1.
    approach: NonNegative = 0.05

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw goals at least `separation` apart and any heading, independent of the task."""
        return self.begin(super().reset(task, rng), rng)

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """Detect an arrival, and how much nearer the robot came to the next goal."""
        return self.progress(layout, Patrol.advance(self, layout, fields, dt), fields, dt)

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) reward of this tick's arrival, and of coming nearer to the next goal."""
        return np.asarray(layout["earned"] + self.approach * layout["nearer"])

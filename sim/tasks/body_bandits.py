"""Body Bandits: Moving Bandits with goals relative to the robot's base.

A camera or a scanner measures where a goal is relative to the robot, not in the odometry's frame.
The robot begins with any heading, so that nothing but the goals' positions relative to it says
where to drive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.goals import seen_from_base
from sim.tasks.moving_bandits import MovingBandits
from sim.tasks.parameter_types import Count, Length


@dataclass(frozen=True, config=STRICT)
class BodyBandits(MovingBandits):
    """The task is the slot of the goal that counts."""

    name: ClassVar[str] = "body_bandits"
    robot: ClassVar[str] = "rover"
    requires: ClassVar[tuple[str, ...]] = ("position", "heading")
    places: ClassVar[bool] = True
    frame: ClassVar[str] = "base_link"
    # Goals are relative to the robot: the odometry and the scan carry no information. A skill that
    # observes them is good only at the places of its training.
    recommended: ClassVar[Mapping[str, Any]] = {
        "mlsh.rollout_ticks": 100,
        "mlsh.envs": 16,
        "network.hidden_from_skills": ["position", "heading", "scan"],
        "network.hidden_from_masters": ["position", "heading", "scan"],
    }

    ticks: Count = 100  # length of an episode; at 0.22 m/s the farthest goal is 5 s away
    radius: Length = 0.2  # m, of a goal
    half_width: Length = 0.7  # m, half the side of the square in which goals are drawn

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw goals uniformly in the square and any heading, independent of the task."""
        drawn = super().reset(task, rng)
        # Two turns: a heading is shown as a quaternion, and both signs of it are the same one.
        return {**drawn, "start": np.array([0.0, 0.0, rng.uniform(-2 * np.pi, 2 * np.pi)])}

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Positions of the goals relative to base_link, m, as one term (n, 2 * shown)."""
        return seen_from_base(layout["goals"], robot)

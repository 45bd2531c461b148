"""Mazes: those of `ant_mazes` for a robot that walks, which sees where start and goal are.

The walls are hidden: which maze it is, is the task. Sizes are for a robot of 0.7 m: corridors
of 2 m.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative, ObservationTerm
from sim.tasks.ant_mazes import AntMazes
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.goals import seen_from_base
from sim.tasks.parameter_types import Angle, Count, Length, Scale, Speed
from sim.tasks.running import FALLEN
from sim.tasks.walking_goals import MASTERS_SEE_THE_POSE, WalkingGoals, goals_from_base


@dataclass(frozen=True, config=STRICT)
class Mazes(AntMazes):
    """The task is the maze: its blocks and its goal."""

    name: ClassVar[str] = "mazes"
    robot: ClassVar[str] = "go2"
    recommended: ClassVar[Mapping[str, Any]] = {
        **WalkingGoals.recommended,
        "mlsh.rollout_ticks": 1500,
        **MASTERS_SEE_THE_POSE,
    }

    ticks: Count = 1500  # length of an episode: 30 s at 50 Hz
    radius: Length = 0.6  # m, of the goal: within it the goal is reached
    scale: Scale = 0.125  # factor of the lengths of `ant_mazes`: corridors of 2 m
    speed: Speed = 0.8  # m/s, measured speed of the robot, for the reference returns
    effort: NonNegative = 0.0  # factor of the squared action, subtracted per tick
    tilt: Angle = FALLEN  # rad, tilt that ends an episode; 0: none does

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Start and goal relative to base_link, as places of the same term as other goals."""
        return (goals_from_base(2),)

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Positions of start and goal relative to base_link, m, as one term (n, 4)."""
        return seen_from_base(np.stack([layout["start"][:, :2], layout["goal"]], axis=1), robot)

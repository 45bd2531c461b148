"""Body Rooms: Rooms for a robot that walks. Which spot of the house is the goal is hidden.

Sizes are for a robot of 0.7 m: rooms of 2.5 m with doors of 1 m, in which it can turn around.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.house import ROOMS, House
from sim.tasks.parameter_types import Count, Length, Scale
from sim.tasks.scenery import WALL_HEIGHT
from sim.tasks.walled_goals import WalledGoals


@dataclass(frozen=True, config=STRICT)
class BodyRooms(House, WalledGoals):
    """The task is the spot that is the goal.

    The two observed places are the start and the middle of the house, which do not show the goal.
    """

    name: ClassVar[str] = "body_rooms"
    height: ClassVar[float] = WALL_HEIGHT  # m, of the walls
    recommended: ClassVar[Mapping[str, Any]] = {
        **WalledGoals.recommended,
        "mlsh.rollout_ticks": 750,
    }

    ticks: Count = 750  # length of an episode: 15 s at 50 Hz
    radius: Length = 0.6  # m, of the goal
    scale: Scale = 2.5  # factor of the lengths of `rooms`

    @property
    def inside(self) -> tuple[float, float]:
        """The middle of the first door, m."""
        x, y = self.doors[0][0]
        return float(x), float(y)

    @property
    def destinations(self) -> Floats:
        """(4, 2) a goal in every room, m."""
        return np.array([self.spot(room) for room in range(ROOMS)])

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Begin at any door with any heading, or anywhere in any room, independent of the task."""
        xy = self.begin_at(rng)
        start = np.array([*xy, rng.uniform(-np.pi, np.pi)])
        goals = np.stack([xy, np.zeros(2)])
        return self.started({"goal": self.spot(task), "goals": goals, "start": start})

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) next point on the shortest path to the first spot, wherever the goal is, m."""
        position = fields["position"]
        return self.ways.measure(position, np.tile(self.spot(0), (len(position), 1)))[1]

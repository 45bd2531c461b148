"""Obstacles: the course of `ant_obstacles` for a robot that walks, around walls and a block.

+-------------------+ 10     Lengths are those of `ant_obstacles` times `scale`; the figure shows
|              goal |        them in m at the default. Every passage is at least 2 m wide.
+--------+    ------+ 6.25
|        |    |     |        A solid block is in the place of the monster, because contact with an
+--------+    |     | 1.25   obstacle does not end an episode. Nothing has to be climbed, so that
| start       |     |        skills that walk on a level floor are enough.
+-------------+-----+ -0.75
-0.75    3.75 7.5   10       The reward is dense: the decrease of the path to the goal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import mujoco
import numpy as np
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.ant_obstacles import GOAL, LAIR, ROUND, WALLS
from sim.tasks.base import EpisodeState
from sim.tasks.parameter_types import Angle, Count, Length, Scale
from sim.tasks.scenery import GOAL_COLOR, WALL_HEIGHT, add_disc, add_walls
from sim.tasks.walled_goals import WalledGoals
from sim.tasks.ways import Box

LEFT, UPPER = WALLS[2][0], WALLS[1][1]  # m, the edges of the room along x and y
MIDDLE, HALF = (LEFT + UPPER) / 2, (UPPER - LEFT) / 2
# The ant's outer walls are longer than its room: too long for a picture of it.
OUTER = tuple(
    (x, MIDDLE, thin, HALF + thin) if thin == half_x else (MIDDLE, y, HALF + thin, thin)
    for x, y, half_x, half_y in WALLS[:4]
    for thin in (min(half_x, half_y),)
)
BLOCK = ((LEFT + ROUND) / 2, LAIR[1], (ROUND - LEFT) / 2, ROUND)  # the round's square, inside
BOXES = (*OUTER, *WALLS[4:], BLOCK)


@dataclass(frozen=True, config=STRICT)
class Obstacles(WalledGoals):
    """A single task: the way to the far corner."""

    name: ClassVar[str] = "obstacles"
    tasks: ClassVar[tuple[str, ...]] = ("corner",)
    recommended: ClassVar[Mapping[str, Any]] = {
        **WalledGoals.recommended,
        "mlsh.rollout_ticks": 2000,
    }

    ticks: Count = 2000  # length of an episode: 40 s at 50 Hz
    radius: Length = 0.6  # m, of the goal
    scale: Scale = 0.25  # factor of the lengths of `ant_obstacles`
    heading: Angle = 0.1  # rad, largest deviation of the heading at the start

    @property
    def walls(self) -> tuple[Box, ...]:
        """Centre x, y and half sizes x, y, m: outer walls, walls, and the block."""
        s = self.scale
        return tuple((s * x, s * y, s * half_x, s * half_y) for x, y, half_x, half_y in BOXES)

    @property
    def inside(self) -> tuple[float, float]:
        """The start, m."""
        return 0.0, 0.0

    @property
    def destinations(self) -> Floats:
        """(1, 2) the goal, m."""
        return self.scale * np.array([GOAL])

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add the walls, the block, and a disc that marks the goal in pictures."""
        add_walls(spec, self.walls, WALL_HEIGHT)
        add_disc(spec, "goal", self.radius, GOAL_COLOR)

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Position (n, 2) of the goal's disc, m."""
        return {"goal": self.target(layout)}

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Begin at the origin, facing nearly along x; the observed places are start and goal."""
        start = np.array([0.0, 0.0, rng.uniform(-self.heading, self.heading)])
        goals = np.stack([start[:2], self.scale * np.array(GOAL)])
        return self.started({"goals": goals, "slot": np.float64(1), "start": start})

"""Ant obstacles: a room with two walls and a monster, rewarded only in the far corner.

+-------------------+ 40   Exact geometry of openai/mlsh, AntObstacles-v1. From (0, 0) the way is
|              goal |      right, past the monster's round of 15 m about (0, 20), up, past the
|              -----+ 25   wall's upper end, right and up again: 76 m along the axes.
| monster     |     |
|             |     |      Sparse, as the paper says: 1 per tick in the goal's region, else 0.
| start       |     |      The released code has it commented out: a reward where x + y > 77.6,
+-------------+-----+ -3   since its arrays do not fit: beyond the goal's box at (38, 38), not in
-3           30    40      it. `published` has that; by default it is a circle around the box.

The monster, a ball of 3 m, comes by 1 m per tick along x and y while the robot is in its round.
Published, it weighs 25 t and hurls the robot away. Here an episode ends where it touches it.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Count, Length
from sim.tasks.planar import within
from sim.tasks.running import RunningTask
from sim.tasks.scenery import ANT_WALL_HEIGHT, GOAL_COLOR, add_disc, add_walls

# Centre x, y and half sizes, m: lower, upper, left, right, on the wall's top, the wall.
WALLS = (
    (28.0, -3.0, 35.0, 0.3),
    (28.0, 40.0, 35.0, 0.3),
    (-3.0, 28.0, 0.3, 35.0),
    (40.0, 28.0, 0.3, 35.0),
    (35.0, 25.0, 5.0, 0.3),
    (30.0, 10.0, 0.3, 15.0),
)
GOAL = (38.0, 38.0)  # m
CORNER = 77.6  # m, of x + y: 2 (x + y) - 200 squared is below 2000 from here on
LAIR, ROUND, STRIDE = (0.0, 20.0), 15.0, 1.0  # m
# m, between the middles: a ball of 3 m at 1 m above the floor and the torso, 0.25 m at 0.48 m.
TOUCH = 3.2
MONSTER_COLOR, ROUND_COLOR = (0.78, 0.16, 0.16, 0.55), (0.78, 0.16, 0.16, 0.12)


@dataclass(frozen=True, config=STRICT)
class AntObstacles(RunningTask):
    """A single task with a sparse reward, which is not learned from scratch."""

    name: ClassVar[str] = "ant_obstacles"
    tasks: ClassVar[tuple[str, ...]] = ("corner",)

    ticks: Count = 2000  # length of an episode: 50 s of the ant; released code: 1000
    effort: NonNegative = 0.0  # factor of the squared action, subtracted per tick
    radius: Length = 2.0  # m around the goal in which there is a reward
    published: bool = False  # reward where x + y > 77.6 m, as in the released code
    monster: bool = True  # a ball that chases the ant; the episode ends if it touches the ant

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add the walls, and discs that mark the goal, the monster and its path in pictures."""
        add_walls(spec, WALLS, ANT_WALL_HEIGHT)
        add_disc(spec, "goal", self.radius, GOAL_COLOR)
        if self.monster:
            add_disc(spec, "round", ROUND, ROUND_COLOR)
            add_disc(spec, "monster", TOUCH, MONSTER_COLOR)

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Positions (n, 2) of the discs, m."""
        monster = layout["monster"]
        places = {"goal": np.tile(GOAL, (len(monster), 1))}
        if self.monster:
            places |= {"round": np.tile(LAIR, (len(monster), 1)), "monster": monster}
        return places

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Begin at the origin, facing nearly along x, with the monster in its lair."""
        return {**self.begin(0.0, 0.0, rng), "monster": np.array(LAIR)}

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """Add one step of the monster to its position (n, 2), m."""
        changes = super().advance(layout, fields, dt)
        if not self.monster:
            return changes
        position, monster = fields["position"], layout["monster"]
        near = within(position, LAIR, ROUND)
        stride = STRIDE * np.sign(position - monster) * near[:, None]
        return {**changes, "monster": monster + stride}

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) the goal, m."""
        return np.tile(GOAL, (len(layout["monster"]), 1))

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) 1 in the goal's region, else 0."""
        return self.success(layout, fields).astype(np.float64)

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True in the goal's region."""
        position = fields["position"]
        if self.published:
            return np.asarray(position.sum(axis=1) > CORNER)
        return within(position, GOAL, self.radius)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the monster touches the robot, or if leaning too far ends an episode."""
        ended = super().terminated(layout, fields)
        if self.monster:
            ended = ended | within(fields["position"], layout["monster"], TOUCH)
        return ended

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Returns zero for running in one direction only; and all ticks after the way there."""
        # Along the axes, to the nearest point of the circle.
        meters = CORNER if self.published else sum(GOAL) - 2**0.5 * self.radius
        return 0.0, max(0.0, self.ticks - meters / (self.speed * dt))

"""Ant mazes: corridors on a grid of 3 x 3 cells of 16 m; each maze is one task.

+----+----+----+  y 16   Every maze closes some cells with blocks and leaves a way of free ones
| 00 | 01 | 02 |         from the start, at the left of cell 10, to its goal. Mazes 0 to 8 are
+----+----+----+  y 0    those of MLSH (openai/mlsh, AntObstaclesGen-v1), 9 to 12 the test mazes of
S 10 | 11 | 12 |         FAMP (Kuric and van Hoof 2023).
+----+----+----+  y -16
| 20 | 21 | 22 |         Published reward: the speed along x and y, each towards the goal,
+----+----+----+         less 0.1 of the squared action.
x 8    24   40

The direction to the goal is a sign there, taken before the tick: a robot that crosses the line of
the goal is rewarded for the whole tick, and again for coming back, so that walking to and fro over
it is rewarded without end. By default the reward is the decrease of the distance along x and y per
second: the same until the line is reached, and in total never more than the distance. `published`
selects the reward by signs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Count, Length, Scale
from sim.tasks.planar import within
from sim.tasks.running import RunningTask
from sim.tasks.scenery import (
    ANT_WALL_HEIGHT,
    GOAL_COLOR,
    WALL_COLOR,
    add_block,
    add_disc,
    add_walls,
)

START = (2.0, 0.0)  # m
NEAREST = 0.5  # m, of the start to the left wall's middle: room for the robot itself
CELL = 16.0  # m
CELLS = {
    f"{row}{column}": (8 + CELL * column, 16 - CELL * row)
    for row in range(3)
    for column in range(3)
}  # middle of each cell, m
HALF_BLOCK = (7.6, 7.6, ANT_WALL_HEIGHT / 2)  # m
SUNK = -2.0  # m, where the middle of a block is that is not there
# Centre x, y and half sizes, m.
WALLS = (
    (24.0, -24.0, 24.0, 0.3),
    (24.0, 24.0, 24.0, 0.3),
    (0.0, 0.0, 0.3, 24.0),
    (48.0, 0.0, 0.3, 24.0),
)
OUTER = 47.7  # m, where the right one begins
REACH = 0.25  # m, from the middle of a robot to a wall that it leans against

# Goal, m, and free cells.
MAZES: tuple[tuple[tuple[float, float], tuple[str, ...]], ...] = (
    ((8, 24), ("10", "00")),
    ((8, -24), ("10", "20")),
    ((24, 24), ("10", "11", "01")),
    ((24, -24), ("10", "11", "21")),
    ((48, 0), ("10", "11", "12")),
    ((40, 24), ("10", "11", "12", "02")),
    ((40, -24), ("10", "11", "12", "22")),
    ((32, 16), ("10", "00", "01")),
    ((32, -16), ("10", "20", "21")),
    ((40, 24), ("10", "00", "01", "02")),
    ((40, -24), ("10", "20", "21", "22")),
    ((40, 24), ("10", "11", "01", "02")),
    ((40, -24), ("10", "11", "21", "22")),
)  # the last four are test mazes, of which the training of skills knows nothing


@dataclass(frozen=True, config=STRICT)
class AntMazes(RunningTask):
    """The task is the maze: its blocks and its goal."""

    name: ClassVar[str] = "ant_mazes"
    solid: ClassVar[bool] = True

    ticks: Count = 1000  # length of an episode: 25 s of the ant
    radius: Length = 3.0  # m, of the goal: within it the goal is reached
    # Number of mazes, from the last, that are no tasks: 4 excludes the test mazes from training.
    held_out: Annotated[int, Field(ge=0, lt=len(MAZES))] = 0
    published: bool = False  # the reward of the released code
    scale: Scale = 1.0  # factor of all lengths on the floor; 0.125: corridors of 2 m

    @property
    def tasks(self) -> tuple[str, ...]:
        """maze-0 .. maze-12, without the held-out ones."""
        return tuple(f"maze-{i}" for i in range(len(MAZES) - self.held_out))

    @property
    def start(self) -> tuple[float, float]:
        """Position at which episodes begin, m."""
        return max(self.scale * START[0], NEAREST), self.scale * START[1]

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add the outer walls, a block per cell, and a disc that marks the goal in pictures."""
        s = self.scale
        walls = [(s * x, s * y, s * half_x, s * half_y) for x, y, half_x, half_y in WALLS]
        bit = add_walls(spec, walls, ANT_WALL_HEIGHT)
        half = (s * HALF_BLOCK[0], s * HALF_BLOCK[1], HALF_BLOCK[2])
        for cell in CELLS:
            add_block(spec, f"block_{cell}", half, WALL_COLOR, bit)
        add_disc(spec, "goal", self.radius, GOAL_COLOR)

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Positions (n, 2) of the disc and (n, 3) of the blocks, m; unused ones are sunk."""
        places = {"goal": layout["goal"]}
        for i, (cell, xy) in enumerate(CELLS.items()):
            height = np.where(layout["free"][:, i] > 0, SUNK, HALF_BLOCK[2])
            x, y = self.scale * xy[0], self.scale * xy[1]
            places[f"block_{cell}"] = np.stack(np.broadcast_arrays(x, y, height), axis=-1)
        return places

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Begin at the left of the middle row, facing nearly along x, independent of the task."""
        goal, free = MAZES[task]
        cells = np.array([cell in free for cell in CELLS], np.float64)
        begun = {**self.begin(*self.start, rng), "goal": self.scale * np.array(goal, np.float64)}
        return {**begun, "free": cells, "nearer": np.float64(0), "reached": np.float64(0)}

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """Add the speed (n,) towards the goal, m/s, and whether it has been reached."""
        changes = super().advance(layout, fields, dt)
        before, goal = layout["before"], layout["goal"]
        if self.published:
            towards = changes["rate"] * np.where(before < goal, 1.0, -1.0)
        else:
            towards = (np.abs(before - goal) - np.abs(fields["position"] - goal)) / dt
        reached = np.maximum(layout["reached"], within(fields["position"], goal, self.radius))
        return {**changes, "nearer": towards.sum(axis=1), "reached": reached}

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) the goal, m."""
        return layout["goal"]

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) speed towards the goal, along x and y together, m/s."""
        return layout["nearer"]

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True once the robot has been within the radius of the goal."""
        return np.asarray(layout["reached"] > 0)

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Returns of running right to the wall, and of running to the goal in the given time.

        Along x and y together: all mazes can be run through without a step away from the goal.
        """
        (x, y), free = MAZES[task]
        row = ("10", "11", "12")
        open_cells = next((i for i, cell in enumerate(row) if cell not in free), len(row))
        walls = [CELLS[cell][0] - HALF_BLOCK[0] for cell in row] + [OUTER]
        (begun, _), x, y = self.start, self.scale * x, self.scale * y
        end = min(begun + self.speed * dt * self.ticks, self.scale * walls[open_cells] - REACH)
        task_blind = (abs(x - begun) - abs(x - end)) / dt
        meters = abs(x - begun) + abs(y)
        return task_blind, min(meters / dt, self.speed * self.ticks)

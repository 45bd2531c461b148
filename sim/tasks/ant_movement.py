"""Ant movement: run in a direction; each direction is one task.

Published (openai/mlsh, AntMovement-v1): right and up; the reward of a tick is the forward speed,
less 0.1 of the squared action, less 0.5 per metre beside the line through the start. These are the
defaults.

The last part teaches a skill that observes its position to return to that line. In a maze, where
the line is another one, such a skill walks into walls. Skills that are to be transferred are
trained with `lateral` 0 and with `sideways`, which subtracts the sideways speed instead of the
distance, in a `room`, where they learn to stay upright at a wall. `fall` is the cost of lying.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Count, Length, LengthOrZero
from sim.tasks.running import RunningTask
from sim.tasks.scenery import ANT_WALL_HEIGHT, add_walls

CLEAR, THICKNESS = 1.5, 0.3  # m: of a start from the walls, and of these
# Two of them are published; the ways through the mazes consist of three.
DIRECTIONS = {"right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0), "left": (-1.0, 0.0)}


@dataclass(frozen=True, config=STRICT)
class AntMovement(RunningTask):
    """The task is the direction to run in."""

    name: ClassVar[str] = "ant_movement"
    all_tasks: ClassVar[dict[str, int]] = {"directions": len(DIRECTIONS)}
    # The paper's 200 ticks; skills do not observe the position, and masters not the joints.
    recommended: ClassVar[Mapping[str, Any]] = {
        "mlsh.decision_ticks": 200,
        "mlsh.rollout_ticks": 200,
        "mlsh.groups": 6,
        "mlsh.envs": 16,
        "network.hidden_from_skills": ["position"],
        "network.hidden_from_masters": [
            *("height", "angular_velocity", "hip", "ankle", "hip_velocity", "ankle_velocity")
        ],
        "network.initial_log_std": -0.5,
    }

    ticks: Count = 600  # length of an episode: 15 s of the ant
    directions: Annotated[int, Field(ge=2, le=len(DIRECTIONS))] = 2  # number of tasks
    lateral: NonNegative = 0.5  # subtracted per tick and m beside the line through the start
    sideways: NonNegative = 0.0  # subtracted per tick and m/s of sideways speed
    far: Length = 15.0  # m in the direction of the task that count as success
    room: LengthOrZero = 0.0  # m, half the width of a walled room around the origin; 0: no walls

    @property
    def tasks(self) -> tuple[str, ...]:
        """right, up, and with four directions down, left."""
        return tuple(DIRECTIONS)[: self.directions]

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Begin at the origin, or anywhere in the room, facing nearly along x."""
        ahead = np.array(DIRECTIONS[self.tasks[task]])
        within = max(0.0, self.room - CLEAR)
        x, y = rng.uniform(-within, within, 2) if within else (0.0, 0.0)
        return {**self.begin(x, y, rng), "ahead": ahead}

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add the room's walls, if it has any."""
        if self.room:
            half, t = self.room, THICKNESS / 2
            sides = [(s * (half + t), 0.0, t, half + 2 * t) for s in (-1, 1)]
            add_walls(spec, [*sides, *((y, x, b, a) for x, y, a, b in sides)], ANT_WALL_HEIGHT)

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) speed in the task's direction, m/s, minus the penalties for sideways motion."""
        ahead, rate = layout["ahead"], layout["rate"]
        reward = dot(rate, ahead)
        if self.lateral:
            reward -= self.lateral * np.abs(aside(self._way(layout, fields), ahead))
        if self.sideways:
            reward -= self.sideways * np.abs(aside(rate, ahead))
        return np.asarray(reward - self.fallen(fields))

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the robot has come far enough in the task's direction."""
        return np.asarray(dot(self._way(layout, fields), layout["ahead"]) >= self.far)

    def _way(self, layout: EpisodeState, fields: Fields) -> Floats:
        return np.asarray(fields["position"] - layout["start"][:, :2])

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Returns of running right for every task; and of running in the task's direction.

        Costs of effort and the time to accelerate are neglected. In a room the way to the wall is
        anything from zero to its width, and ends the run.
        """
        ahead = np.array(DIRECTIONS[self.tasks[task]])
        right = np.array(DIRECTIONS["right"])
        beside = abs(float(aside(right, ahead)))
        meters = self.speed * dt * self.ticks * (self.ticks + 1) / 2  # summed over the ticks
        task_blind = (
            self.ticks * self.speed * (float(dot(right, ahead)) - self.sideways * beside)
            - self.lateral * beside * meters
        )
        way = self.speed * dt * self.ticks
        width = 2 * max(0.0, self.room - CLEAR)
        if width:  # the mean of what is shorter: the way in the time, or to the wall
            way = way - way**2 / (2 * width) if way < width else width / 2
            task_blind *= way / (self.speed * dt * self.ticks)
        return task_blind, way / dt


def dot(vector: Floats, ahead: Floats) -> Floats:
    """(...,) part of vectors (..., 2) along directions (..., 2)."""
    return np.asarray(vector[..., 0] * ahead[..., 0] + vector[..., 1] * ahead[..., 1])


def aside(vector: Floats, ahead: Floats) -> Floats:
    """(...,) part of vectors (..., 2) to the left of directions (..., 2)."""
    return np.asarray(vector[..., 1] * ahead[..., 0] - vector[..., 0] * ahead[..., 1])

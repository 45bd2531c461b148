"""Ant movement: run in a direction; the task is which one.

Published (openai/mlsh, AntMovement-v1): right and up, and a tick pays the speed ahead, less 0.1 of
the squared action, less 0.5 per metre beside the line through the start: the defaults here.

That last part teaches a skill that sees where it is to come back to the line. Carried into a maze,
where the line is another one, it walks into walls. For skills that are to be transferred:
`lateral: 0`, and `sideways`, which takes off the speed aside instead of the way.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative, Positive
from sim.tasks.goals import Count
from sim.tasks.running import RunningTask
from sim.tasks.task import Fields, Layout

# Two as published; three are what the mazes are made of.
DIRECTIONS = {"right": (1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0), "left": (-1.0, 0.0)}


@dataclass(frozen=True, config=STRICT)
class AntMovement(RunningTask):
    """The task is the direction to run in."""

    name: ClassVar[str] = "ant_movement"

    ticks: Count = 600  # of an episode: 15 s of the ant
    directions: Annotated[int, Field(ge=2, le=len(DIRECTIONS))] = 2
    lateral: NonNegative = 0.5  # taken off per tick and metre beside the line
    sideways: NonNegative = 0.0  # taken off per tick and m/s aside
    far: Positive = 15.0  # m in the direction that count as success

    @property
    def tasks(self) -> tuple[str, ...]:
        """right, up, and if so many are wanted down, left."""
        return tuple(DIRECTIONS)[: self.directions]

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """At the origin, nearly along x, whatever the task."""
        ahead = np.array(DIRECTIONS[self.tasks[task]])
        return {**self.begin(0.0, 0.0, rng), "ahead": ahead}

    def reward(self, layout: Layout, fields: Fields) -> Floats:
        """Speed ahead, less what strays."""
        ahead, rate = layout["ahead"], layout["rate"]
        reward = dot(rate, ahead)
        if self.lateral:
            reward -= self.lateral * np.abs(aside(self._way(layout, fields), ahead))
        if self.sideways:
            reward -= self.sideways * np.abs(aside(rate, ahead))
        return reward

    def success(self, layout: Layout, fields: Fields) -> NDArray[np.bool_]:
        """Far enough ahead."""
        return np.asarray(dot(self._way(layout, fields), layout["ahead"]) >= self.far)

    def _way(self, layout: Layout, fields: Fields) -> Floats:
        return np.asarray(fields["position"] - layout["start"][:, :2])

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Running right whatever the task; running ahead in line from the first tick on.

        Nobody pays for effort here, and nobody has to get going.
        """
        ahead = np.array(DIRECTIONS[self.tasks[task]])
        right = np.array(DIRECTIONS["right"])
        beside = abs(float(aside(right, ahead)))
        metres = self.speed * dt * self.ticks * (self.ticks + 1) / 2  # summed over the ticks
        collapsed = (
            self.ticks * self.speed * (float(dot(right, ahead)) - self.sideways * beside)
            - self.lateral * beside * metres
        )
        return collapsed, self.ticks * self.speed


def dot(vector: Floats, ahead: Floats) -> Floats:
    """(...,) part of vectors (..., 2) along directions (..., 2)."""
    return np.asarray(vector[..., 0] * ahead[..., 0] + vector[..., 1] * ahead[..., 1])


def aside(vector: Floats, ahead: Floats) -> Floats:
    """(...,) part of vectors (..., 2) to the left of directions (..., 2)."""
    return np.asarray(vector[..., 1] * ahead[..., 0] - vector[..., 0] * ahead[..., 1])

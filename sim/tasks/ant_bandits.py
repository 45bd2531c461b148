"""Ant bandits: two targets, 5 m to the right and 5 m up; which one is rewarded is hidden.

Published (openai/mlsh, AntBandits-v1): the reward of a tick is minus the square root of the
distance to the target, divided by 3000, without a cost of effort. The distance is to a point 1 m
above the floor, so that standing at the target has a small cost too.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.goals import COLORS
from sim.tasks.parameter_types import Count, Length
from sim.tasks.planar import within
from sim.tasks.running import RunningTask, run
from sim.tasks.scenery import add_disc

TARGETS = {"right": (5.0, 0.0), "up": (0.0, 5.0)}  # m
TARGET_HEIGHT = 1.0  # m
STANDING = 0.48  # m, height of the ant's torso
PER_ROOT = 3000.0  # ticks that cost 1 at 1 m


@dataclass(frozen=True, config=STRICT)
class AntBandits(RunningTask):
    """The task is the target that counts."""

    name: ClassVar[str] = "ant_bandits"
    requires: ClassVar[tuple[str, ...]] = ("position", "height", "orientation")
    tasks: ClassVar[tuple[str, ...]] = tuple(TARGETS)

    ticks: Count = 1000  # length of an episode: 25 s of the ant
    effort: NonNegative = 0.0  # factor of the squared action, subtracted per tick
    radius: Length = 1.0  # m, of the target: within it counts as success

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add a flat disc for each target, for rendering."""
        for i, name in enumerate(TARGETS):
            add_disc(spec, name, self.radius, COLORS[i])

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Positions (n, 2) of both discs, m, independent of the task."""
        count = len(layout["goal"])
        return {name: np.tile(xy, (count, 1)) for name, xy in TARGETS.items()}

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Begin at the origin, facing nearly along x, independent of the task."""
        return {**self.begin(0.0, 0.0, rng), "goal": np.array(TARGETS[self.tasks[task]])}

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) the target that counts, m."""
        return layout["goal"]

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) minus the root of the distance, over 3000."""
        flat = np.linalg.norm(fields["position"] - layout["goal"], axis=1)
        return paid(flat, TARGET_HEIGHT - fields["height"][:, 0])

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True within the radius of the target."""
        return within(fields["position"], layout["goal"], self.radius)

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Returns of running to the first target for every task; and to the target that counts."""
        first, goal = TARGETS["right"], TARGETS[self.tasks[task]]
        return self._running_to(first, goal, dt), self._running_to(goal, goal, dt)

    def _running_to(self, aim: tuple[float, float], goal: tuple[float, float], dt: float) -> float:
        path = run([(0.0, 0.0), aim], self.speed, dt, self.ticks)
        flat = np.linalg.norm(path - goal, axis=1)
        return float(paid(flat, TARGET_HEIGHT - STANDING).sum())


def paid(flat: Floats, above: Floats | float) -> Floats:
    """(n,) reward of a tick at distances `flat` on the floor and `above` upwards, m."""
    return np.asarray(-np.sqrt(np.hypot(flat, above)) / PER_ROOT)

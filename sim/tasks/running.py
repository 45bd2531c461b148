"""Shared by families of legged robots: start pose, cost of effort, termination on a fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative
from sim.tasks.base import EpisodeState, Fields, HiddenTask
from sim.tasks.parameter_types import Angle, Natural, Speed

# m/s, above the mean speed of every skill of the shipped bundles. All bounds are computed from it,
# so that scores of trainings have one unit; skills of other trainings have had 6.1 (ADR 57).
SPEED = 5.2
FALLEN = 1.0  # rad from upright


@dataclass(frozen=True, config=STRICT)
class RunningTask(HiddenTask):
    """A legged robot that starts upright and is rewarded for its position on the floor.

    `rate` in the episode state is the mean velocity over the last tick, so that its sum over an
    episode is the displacement, whatever the robot does between two ticks.
    """

    robot: ClassVar[str] = "ant"
    requires: ClassVar[tuple[str, ...]] = ("position", "orientation")
    places: ClassVar[bool] = True

    speed: Speed = SPEED  # m/s, for the reference returns alone
    effort: NonNegative = 0.1  # factor of the squared action, subtracted per tick
    heading: Angle = 0.1  # rad, largest deviation of the heading at the start
    shake: Angle = 0.05  # rad, largest deviation of every joint at the start
    pose_reset: Natural = 0  # ticks between two resets of the pose, published: 200; 0: none
    fall: NonNegative = 0.0  # subtracted per tick while the robot leans by more than 1 rad
    tilt: Angle = 0.0  # rad, tilt that ends an episode; 0: none does

    def begin(self, x: float, y: float, rng: np.random.Generator) -> dict[str, Floats]:
        """Rows of the layout for an episode that begins at x, y, m."""
        start = np.array([x, y, rng.uniform(-self.heading, self.heading)])
        return {"start": start, "before": start[:2], "rate": np.zeros(2)}

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """Position (n, 2) at the previous tick, m, and mean velocity (n, 2) since then, m/s."""
        position = fields["position"]
        return {"before": position, "rate": (position - layout["before"]) / dt}

    def cost(self, action: Floats) -> Floats:
        """(n,) `effort` times the squared length of the action (n, A)."""
        return np.asarray(self.effort * np.einsum("na,na->n", action, action))

    def fallen(self, fields: Fields) -> Floats:
        """(n,) `fall` where the robot has fallen, else 0."""
        if not self.fall:
            return np.zeros(len(fields["position"]))
        return np.asarray(self.fall * leans(fields["orientation"], FALLEN), np.float64)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the robot leans too far and that ends an episode."""
        if not self.tilt:
            return super().terminated(layout, fields)
        return leans(fields["orientation"], self.tilt)


def run(points: Sequence[tuple[float, float]], speed: float, dt: float, ticks: int) -> Floats:
    """(ticks, 2) positions after every tick of a run along points, which ends at the last point.

    Args:
        points: the first is the start, m.
        speed: m/s, from the first tick on.
        dt: s per tick.
        ticks: number of ticks.
    """
    corners = np.asarray(points, np.float64)
    legs = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    reached = np.concatenate([[0.0], np.cumsum(legs)])  # m
    way = speed * dt * np.arange(1, ticks + 1)
    return np.stack([np.interp(way, reached, corners[:, i]) for i in range(2)], axis=-1)


def leans(quaternion: Floats, angle: float) -> NDArray[np.bool_]:
    """(n,) True where the z axis of bodies (n, 4), w first, is more than `angle` from upright."""
    x, y = quaternion[:, 1], quaternion[:, 2]
    return np.asarray(1 - 2 * (x * x + y * y) < np.cos(angle))

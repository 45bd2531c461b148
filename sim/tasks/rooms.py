"""Rooms: the paper's Fourrooms as navigation between four rooms with a hidden goal, on wheels.

An episode begins in one of the doors of a house, where the paper's begins in a hallway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState, Fields, HiddenTask
from sim.tasks.house import ROOMS, House
from sim.tasks.parameter_types import Count, LengthOrZero
from sim.tasks.planar import within

# For the expert, at scale 1. Distances are from the line of the wall and from the middle of the
# door, m.
BEFORE, THROUGH = 0.25, 0.4  # where to line up with a door, where to head for beyond it
PASSAGE = 0.15  # nearer than this to the wall's line, the robot is in the door
ALIGNED = 0.06  # sideways; a robot of 0.2 m then fits
CONE = 0.8  # sideways per distance from the wall: the same robot fits at 39 degrees


@dataclass(frozen=True, config=STRICT)
class Rooms(House, HiddenTask):
    """The task is the spot that is the goal; reward 1 per tick within `radius` of it.

    With a `fringe` the reward decreases to 0 over that distance beyond the radius, so that a skill
    between two goals gets a gradient. It is for training: success is the radius alone.
    """

    name: ClassVar[str] = "rooms"
    # The paper's four skills and 25 ticks.
    recommended: ClassVar[Mapping[str, Any]] = {
        "mlsh.skills": 4,
        "mlsh.decision_ticks": 25,
        "mlsh.rollout_ticks": 200,
        "mlsh.joint": 30,
        "mlsh.groups": 8,
        "mlsh.envs": 16,
    }
    robot: ClassVar[str] = "omni"
    requires: ClassVar[tuple[str, ...]] = ("position",)
    places: ClassVar[bool] = True

    ticks: Count = 200  # length of an episode: eight decisions of 25 ticks; 4.4 m at 0.22 m/s
    fringe: LengthOrZero = 0.0  # m, beyond the radius: there the reward falls to 0

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Begin at any door with any heading, or anywhere in any room, independent of the task."""
        xy = self.begin_at(rng)
        # Two turns: a heading is shown as a quaternion, and both signs of it are the same one.
        heading = rng.uniform(-2 * np.pi, 2 * np.pi)
        return {"goal": self.spot(task), "start": np.array([*xy, heading])}

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) 1 inside the radius, decreasing to 0 over the fringe around it."""
        if not self.fringe:
            return self.success(layout, fields).astype(np.float64)
        beyond = np.linalg.norm(fields["position"] - layout["goal"], axis=-1) - self.radius
        return np.asarray(np.clip(1 - beyond / self.fringe, 0, 1))

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True inside the radius of the goal."""
        return within(fields["position"], layout["goal"], self.radius)

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) next point on the shortest path to the goal, m."""
        return self.waypoint(fields["position"], layout["goal"])

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) next point on the shortest path to the first spot, wherever the goal is, m."""
        return self.waypoint(fields["position"], np.tile(self.spot(0), (len(layout["goal"]), 1)))

    # The shortest way -----------------------------------------------------------------------

    def waypoint(self, position: Floats, goal: Floats) -> Floats:
        """(n, 2) next point from `position` (n, 2) on the shortest path to `goal` (n, 2), m."""
        middle, into = self.doors
        offset = position[:, None] - middle  # (n, 4, 2)
        beyond = (offset * into).sum(axis=-1)  # (n, 4) m, > 0 in room i + 1
        aside = np.linalg.norm(offset - beyond[..., None] * into, axis=-1)
        inside = (np.abs(beyond) < self.scale * PASSAGE) & (aside < self.scale * self.door / 2)
        here, there = _room(position), _room(goal)
        passing, door = inside.any(axis=1), inside.argmax(axis=1)
        # From a door both neighbors are open: ahead lies door + 1, behind lies door.
        ahead, behind = np.where(passing, door + 1, here), np.where(passing, door, here)
        forward = self._length(position, goal, ahead, there, 1)
        backward = self._length(position, goal, behind, there, -1)
        onward = forward <= backward
        # Which door to take, and whether into the next room or into the one before.
        take = np.where(passing, door, np.where(onward, here, here - 1)) % ROOMS
        sense = np.where(onward, 1.0, -1.0)[:, None]
        rows = np.arange(len(position))
        lateral, far = aside[rows, take], np.abs(beyond[rows, take])
        # In sight of the door straight through its middle, else to where it comes into sight.
        way = -offset[rows, take]
        straight = way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-9)
        aim = np.where(passing[:, None], sense * into[take], straight) * (self.scale * THROUGH)
        in_sight = ((lateral < np.maximum(self.scale * ALIGNED, CONE * far)) | passing)[:, None]
        point = middle[take] + np.where(in_sight, aim, -self.scale * BEFORE * sense * into[take])
        return np.where(((here == there) & ~passing)[:, None], goal, point)

    def _length(
        self, start: Floats, goal: Floats, room: NDArray[np.intp], last: NDArray[np.intp], way: int
    ) -> Floats:
        """(n,) length of the way from `start` through the doors of rooms `room` to `last`, m."""
        middle, _ = self.doors
        count = (way * (last - room)) % ROOMS
        at, total = start, np.zeros(len(start))
        for i in range(ROOMS - 1):
            door = middle[(room + way * i - (way < 0)) % ROOMS]
            going = i < count
            total += np.where(going, np.linalg.norm(door - at, axis=-1), 0)
            at = np.where(going[:, None], door, at)
        return np.asarray(total + np.linalg.norm(goal - at, axis=-1))


def _room(position: Floats) -> NDArray[np.intp]:
    """(n,) the room that each position (n, 2) is in."""
    right, up = position[:, 0] >= 0, position[:, 1] >= 0
    return np.where(up, np.where(right, 0, 1), np.where(right, 3, 2)).astype(np.intp)

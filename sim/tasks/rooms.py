"""Rooms: the paper's Fourrooms as navigation between four rooms with a hidden goal.

+-----+-----+      Rooms are counted counter-clockwise from the upper right one, door i lies
|  1  0  0  |      between the rooms i and i + 1. An episode begins in one of the doors, where
+--1--+--3--+      the paper's begins in a hallway. Two spots of each room can be the goal:
|  2  2  3  |      the outer corner, and the inner one, near the middle of the whole.
+-----+-----+
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative, Positive
from sim.tasks.base import EpisodeState, Fields, HiddenTask
from sim.tasks.goals import Count
from sim.tasks.planar import within
from sim.tasks.scenery import add_disc, add_walls

ROOMS = 4
SPOTS = {"corner": (0.75, 0.75), "inner": (0.3, 0.3)}  # along x and y, of the half width
BETWEEN = 0.725  # the same, in the middle of a pair
GOAL_COLOR = (0.20, 0.60, 0.35, 0.55)
THICKNESS = 0.04  # m, of a wall
HEIGHT = 0.3  # m, above any scanner
CLEAR = 0.15  # m, of a start in a room from the walls
JITTER = 0.03  # m, of the start around the middle of a door

# For the expert. Distances are from the line of the wall and from the middle of the door, m.
BEFORE, THROUGH = 0.25, 0.4  # where to line up with a door, where to head for beyond it
PASSAGE = 0.15  # nearer than this to the wall's line, the robot is in the door
ALIGNED = 0.06  # sideways; a robot of 0.2 m then fits
CONE = 0.8  # sideways per distance from the wall: the same robot fits at 39 degrees


@dataclass(frozen=True, config=STRICT)
class Rooms(HiddenTask):
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
    radius: Positive = 0.25  # m, of the goal
    fringe: NonNegative = 0.0  # m, beyond the radius: there the reward falls to 0
    half_width: Positive = 1.0  # m, half the inner width of all rooms: the width of one room
    door: Positive = 0.4  # m, width of a door
    # Goals of each room: two that are near each other and one between them, in place of the outer
    # corner and the inner one.
    pairs: bool = False
    # With `pairs`: distance of the two from the one between, along x and y, times half_width.
    spread: Annotated[float, Field(gt=0, lt=1 - BETWEEN)] = 0.075
    # Number of goals of each room, from the last, that are no tasks, so that training never sees
    # them.
    held_out: Annotated[int, Field(ge=0, lt=len(SPOTS))] = 0
    # Fraction of the episodes that begin anywhere in a room instead of a door, for robots that
    # would hardly ever come from a door to a corner by random actions.
    scattered: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def tasks(self) -> tuple[str, ...]:
        """corner-0 .. corner-3, inner-0 .. inner-3, or those of pairs; without held-out ones."""
        spots = list(self.spots)[: len(self.spots) - self.held_out]
        return tuple(f"{spot}-{room}" for spot in spots for room in range(ROOMS))

    @property
    def spots(self) -> dict[str, tuple[float, float]]:
        """Possible goal positions in a room."""
        if not self.pairs:
            return SPOTS
        far, near = BETWEEN + self.spread, BETWEEN - self.spread
        return {"long": (far, near), "high": (near, far), "between": (BETWEEN, BETWEEN)}

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add the walls, and a disc that marks the goal in pictures."""
        add_disc(spec, "goal", self.radius, GOAL_COLOR)
        add_walls(spec, self.walls, HEIGHT)

    @property
    def walls(self) -> list[tuple[float, float, float, float]]:
        """Centre x, y and half sizes x, y, m: four outer walls, then those with the doors."""
        t, w = THICKNESS / 2, self.half_width
        outer = [(s * (w + t), 0.0, t, w + 2 * t) for s in (-1, 1)]
        # Along an axis: jamb, door, the middle, door, jamb.
        jamb, middle = (w - self.door) / 4, (w - self.door) / 2
        pieces = [(-w + jamb, jamb), (0.0, middle), (w - jamb, jamb)]
        inner = [(at, 0.0, half, t) for at, half in pieces]
        across = [(y, x, half_y, half_x) for x, y, half_x, half_y in (*outer, *inner)]
        return [*outer, *across[:2], *inner, *across[2:]]

    @property
    def doors(self) -> tuple[Floats, Floats]:
        """Middles (4, 2), m, and the directions (4, 2) from room i into room i + 1."""
        angle = np.pi / 2 * (np.arange(ROOMS) + 1)
        out = np.stack([np.cos(angle), np.sin(angle)], axis=-1).round()
        return out * self.half_width / 2, np.stack([-out[:, 1], out[:, 0]], axis=-1)

    def spot(self, task: int) -> Floats:
        """(2,) position of a task's goal, m."""
        share, room = list(self.spots.values())[task // ROOMS], task % ROOMS
        signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])[room]
        return np.asarray(np.array(share) * self.half_width * signs, np.float64)

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Pose of the goal's disc."""
        return {"goal": layout["goal"]}

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Start at any door with any heading, or anywhere in any room, independent of the task."""
        middle = self.doors[0][rng.integers(ROOMS)]
        xy = middle + rng.uniform(-JITTER, JITTER, 2)
        if self.scattered and rng.random() < self.scattered:
            xy = rng.uniform(CLEAR, self.half_width - CLEAR, 2) * rng.choice((-1, 1), 2)
        # Two turns: a heading is shown as a quaternion, and both signs of it are the same one.
        heading = rng.uniform(-2 * np.pi, 2 * np.pi)
        return {"goal": self.spot(task), "start": np.array([*xy, heading])}

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) the goal, m."""
        return layout["goal"]

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """1 inside the radius, decreasing over the fringe around it."""
        if not self.fringe:
            return self.success(layout, fields).astype(np.float64)
        beyond = np.linalg.norm(fields["position"] - layout["goal"], axis=-1) - self.radius
        return np.asarray(np.clip(1 - beyond / self.fringe, 0, 1))

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """True inside the radius of the goal."""
        return within(fields["position"], layout["goal"], self.radius)

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """The next point on the shortest way to the goal."""
        return self.waypoint(fields["position"], layout["goal"])

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """The next point on the shortest way to the first spot, wherever the goal is."""
        return self.waypoint(fields["position"], np.tile(self.spot(0), (len(layout["goal"]), 1)))

    # The shortest way -----------------------------------------------------------------------

    def waypoint(self, position: Floats, goal: Floats) -> Floats:
        """(n, 2) next point from `position` (n, 2) on the shortest way to `goal` (n, 2)."""
        middle, into = self.doors
        offset = position[:, None] - middle  # (n, 4, 2)
        beyond = (offset * into).sum(axis=-1)  # (n, 4) m, > 0 in room i + 1
        aside = np.linalg.norm(offset - beyond[..., None] * into, axis=-1)
        inside = (np.abs(beyond) < PASSAGE) & (aside < self.door / 2)
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
        aim = np.where(passing[:, None], sense * into[take], straight) * THROUGH
        in_sight = ((lateral < np.maximum(ALIGNED, CONE * far)) | passing)[:, None]
        point = middle[take] + np.where(in_sight, aim, -BEFORE * sense * into[take])
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

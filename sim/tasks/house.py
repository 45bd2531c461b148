"""A house of four rooms with a hidden goal: the floor plan of families for wheels and for legs.

+-----+-----+      Rooms are counted counter-clockwise from the upper right one, door i lies
|  1  0  0  |      between the rooms i and i + 1. Two spots of each room can be the goal: the
+--1--+--3--+      outer corner, and the inner one, near the middle of the whole.
|  2  2  3  |
+-----+-----+
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import mujoco
import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState
from sim.tasks.parameter_types import Length, Scale
from sim.tasks.scenery import GOAL_COLOR, add_disc, add_walls

ROOMS = 4
SPOTS = {"corner": (0.75, 0.75), "inner": (0.3, 0.3)}  # along x and y, of the half width
BETWEEN = 0.725  # the same, in the middle of a pair
# m, at scale 1.
THICKNESS = 0.04  # of a wall
CLEAR = 0.15  # of a start in a room from the walls
JITTER = 0.03  # of the start around the middle of a door


@dataclass(frozen=True, config=STRICT)
class House:
    """Walls, doors, goals and starts. The task is the spot that is the goal."""

    height: ClassVar[float] = 0.3  # m, of the walls: above any scanner on wheels

    radius: Length = 0.25  # m, of the goal
    half_width: Length = 1.0  # m, half the inner width of all rooms: the width of one room
    door: Length = 0.4  # m, width of a door
    scale: Scale = 1.0  # factor of the lengths of rooms, doors and starts, but not of `radius`
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

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.door >= self.half_width:
            raise ValueError(f"door {self.door} must be less than half_width {self.half_width}")
        if self.scattered and self.half_width <= 2 * CLEAR:
            raise ValueError(
                f"half_width {self.half_width} must be above {2 * CLEAR} if scattered is not 0"
            )
        return self

    @property
    def spots(self) -> dict[str, tuple[float, float]]:
        """Goal positions in a room by name: x and y as fractions of its width."""
        if not self.pairs:
            return SPOTS
        far, near = BETWEEN + self.spread, BETWEEN - self.spread
        return {"long": (far, near), "high": (near, far), "between": (BETWEEN, BETWEEN)}

    @property
    def width(self) -> float:
        """Half of the width of the whole, inside, m."""
        return self.scale * self.half_width

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add the walls, and a disc that marks the goal in pictures."""
        add_disc(spec, "goal", self.radius, GOAL_COLOR)
        add_walls(spec, self.walls, self.height)

    @property
    def walls(self) -> list[tuple[float, float, float, float]]:
        """Centre x, y and half sizes x, y, m: four outer walls, then those with the doors."""
        t, w, door = self.scale * THICKNESS / 2, self.width, self.scale * self.door
        outer = [(s * (w + t), 0.0, t, w + 2 * t) for s in (-1, 1)]
        # Along an axis: jamb, door, the middle, door, jamb.
        jamb, middle = (w - door) / 4, (w - door) / 2
        pieces = [(-w + jamb, jamb), (0.0, middle), (w - jamb, jamb)]
        inner = [(at, 0.0, half, t) for at, half in pieces]
        across = [(y, x, half_y, half_x) for x, y, half_x, half_y in (*outer, *inner)]
        return [*outer, *across[:2], *inner, *across[2:]]

    @property
    def doors(self) -> tuple[Floats, Floats]:
        """Middles (4, 2), m, and the directions (4, 2) from room i into room i + 1."""
        angle = np.pi / 2 * (np.arange(ROOMS) + 1)
        out = np.stack([np.cos(angle), np.sin(angle)], axis=-1).round()
        return out * self.width / 2, np.stack([-out[:, 1], out[:, 0]], axis=-1)

    def spot(self, task: int) -> Floats:
        """(2,) position of a task's goal, m."""
        fraction, room = list(self.spots.values())[task // ROOMS], task % ROOMS
        signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])[room]
        return np.asarray(np.array(fraction) * self.width * signs, np.float64)

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Position (n, 2) of the goal's disc, m."""
        return {"goal": layout["goal"]}

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) the goal, m."""
        return layout["goal"]

    def begin_at(self, rng: np.random.Generator) -> Floats:
        """(2,) a start at any door, or anywhere in any room, m."""
        middle = self.doors[0][rng.integers(ROOMS)]
        xy = middle + self.scale * rng.uniform(-JITTER, JITTER, 2)
        if self.scattered and rng.random() < self.scattered:
            clear = self.scale * CLEAR
            xy = rng.uniform(clear, self.width - clear, 2) * rng.choice((-1, 1), 2)
        return np.asarray(xy, np.float64)

"""Shared by families for robots that walk to a goal behind walls, rewarded along the path around.

The walls are not observed, but they have fixed places, so that masters observe the pose. Skills
observe neither the pose nor the two places of the term that all families for walking robots have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.errors import UserError
from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Length, Scale
from sim.tasks.walking_goals import MASTERS_SEE_THE_POSE, WalkingGoals
from sim.tasks.ways import Box, Ways, ways_around


@dataclass(frozen=True, config=STRICT)
class WalledGoals(WalkingGoals):
    """A goal behind walls. A family defines the walls and draws the two places `goals` (2, 2), m.

    The reference returns are those of a point that follows the shortest path. It turns at every
    corner and keeps the distance `body` from the walls.
    """

    shown: ClassVar[int] = 2
    draws: ClassVar[int] = 64  # episodes of the reference returns; the paths take most of the time
    recommended: ClassVar[Mapping[str, Any]] = {
        **WalkingGoals.recommended,
        **MASTERS_SEE_THE_POSE,
    }

    scale: Scale = 1.0  # factor of all lengths but `body` and `radius`
    body: Length = 0.35  # m, distance of the middle of the robot from walls that it passes

    @property
    def walls(self) -> Sequence[Box]:
        """Centre x, y and half sizes x, y, m, of what cannot be passed."""
        raise NotImplementedError

    @property
    def inside(self) -> tuple[float, float]:
        """A place at which an episode can begin, m."""
        raise NotImplementedError

    @property
    def destinations(self) -> Floats:
        """(n, 2) places that the robot has to be able to reach from there, m."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _passable(self) -> Self:
        start = np.tile(self.inside, (len(self.destinations), 1))
        if not np.isfinite(self.ways.measure(start, self.destinations)[0]).all():
            raise ValueError(
                f"a robot that keeps body {self.body} m from the walls does not get to the goal: "
                f"a passage is too narrow at scale {self.scale}"
            )
        return self

    @property
    def ways(self) -> Ways:
        """Shortest paths around the walls."""
        return ways_around(tuple(self.walls), self.body, self.inside)

    def left(self, layout: EpisodeState, position: Floats) -> Floats:
        """(n,) length of the path to the goal, m; where there is none, the length before the tick.

        Raises:
            UserError: there is none where an episode begins.
        """
        length, _ = self.ways.measure(position, self.target(layout))
        before = layout.get("distance")
        if before is None and not np.isfinite(length).all():
            raise UserError("a start has no way to its goal that keeps `body` from the walls")
        return length if before is None else np.where(np.isfinite(length), length, before)

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) next point on the shortest path to the goal, m."""
        return self.ways.measure(fields["position"], self.target(layout))[1]

"""Patrol: two goals are observed; each arrival at the one not visited last is rewarded.

The skills of Moving Bandits go to the first or to the second goal. Here a task requires a sequence
of them: a skill alone arrives once. The observation does not contain which goal was visited last;
the velocity of a moving robot shows it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface import STRICT, Floats
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.goals import GoalTask
from sim.tasks.parameter_types import Count, Length

SHOWN = 2
NOWHERE = -1.0  # the goal visited last, before the first arrival
PAY = {"even": (1.0, 1.0), "tilted": (1.0, 1.2)}  # of an arrival at each goal


@dataclass(frozen=True, config=STRICT)
class Patrol(GoalTask):
    """The task is the reward for an arrival at each of the two goals."""

    name: ClassVar[str] = "patrol"
    tasks: ClassVar[tuple[str, ...]] = tuple(PAY)

    ticks: Count = 200  # length of an episode
    half_width: Length = 1.0  # m, half the side of the square in which goals are drawn
    separation: Length = 0.7  # m, the smallest distance between the two goals

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if not 2 * self.radius < self.separation <= self.half_width:
            raise ValueError(
                f"separation {self.separation} must be above twice the radius {self.radius}, and "
                f"at most half_width {self.half_width}"
            )
        return self

    @property
    def shown(self) -> int:
        """Both goals."""
        return SHOWN

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw goals uniformly in the square, at least `separation` apart, whatever the task."""
        goals = rng.uniform(-self.half_width, self.half_width, (SHOWN, 2))
        while np.linalg.norm(goals[0] - goals[1]) < self.separation:
            goals = rng.uniform(-self.half_width, self.half_width, (SHOWN, 2))
        return {
            "goals": goals,
            "pay": np.array(PAY[self.tasks[task]]),
            "last": np.float64(NOWHERE),
            "arrivals": np.float64(0),
            "earned": np.float64(0),
        }

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """Detect an arrival at the goal that was not visited last."""
        offset = fields["position"][:, None] - layout["goals"]
        inside = (offset**2).sum(axis=-1) < self.radius**2  # (n, 2), at most one of the two
        arrived = inside & (layout["last"][:, None] != np.arange(SHOWN))
        any_goal = arrived.any(axis=1)
        return {
            "last": np.where(any_goal, arrived.argmax(axis=1), layout["last"]),
            "arrivals": layout["arrivals"] + any_goal,
            "earned": (arrived * layout["pay"]).sum(axis=1),
        }

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) the goal to go to next, m: at first goal 0."""
        following = (layout["last"] == 0).astype(np.intp)
        return np.asarray(layout["goals"][np.arange(len(following)), following])

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) reward of this tick's arrival, 0 without one."""
        return np.asarray(layout["earned"])

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if both goals have been visited."""
        return np.asarray(layout["arrivals"] >= SHOWN)

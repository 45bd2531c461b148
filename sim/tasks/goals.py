"""Shared by families with planar goals: all goals are observed, one of them is rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, MujocoState, ObservationTerm, Positive, RosField
from sim.seeding import Stream, generator
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.planar import to_base, within
from sim.tasks.scenery import add_disc

Count = Annotated[int, Field(gt=0)]

COLORS = ((0.86, 0.37, 0.16, 0.55), (0.16, 0.45, 0.78, 0.55), (0.20, 0.60, 0.35, 0.55))


def goals_term(shown: int, frame: str, clip: tuple[float, float] | None = None) -> ObservationTerm:
    """The term of places in the plane, which a perception node publishes as a PoseArray.

    Args:
        shown: number of places.
        frame: that they are in.
        clip: range in which their coordinates are seen, m; None: as they are.
    """
    axes = (f"poses[{i}].position.{axis}" for i in range(shown) for axis in "xy")
    return ObservationTerm(
        name="goals",
        size=2 * shown,
        unit="m",
        frame=frame,
        scale=1.0,
        clip=clip,
        noise=0.0,
        max_age=1.0,
        limit=None,
        inf_values=None,
        mujoco=MujocoState(task="goals"),
        ros=RosField(
            topic="goals",
            type="geometry_msgs/msg/PoseArray",
            fields=tuple(axes),
            required_values=(),
        ),
    )


def seen_from_base(goals: Floats, robot: Fields) -> dict[str, Floats]:
    """The term's values for places (n, shown, 2) of the odom frame, m, relative to base_link."""
    relative = to_base(goals - robot["position"][:, None], robot)
    return {"goals": relative.reshape(len(relative), -1)}


def episode_generators(count: int) -> list[np.random.Generator]:
    """One for each episode of the reference returns."""
    return [generator(0, Stream.EPISODE, 0, n) for n in range(count)]


def drawn_states(
    family: GoalTask, task: int, rngs: Sequence[np.random.Generator]
) -> dict[str, Floats]:
    """Draws of a family for the beginning of n episodes, (n, ...) by name."""
    rows = [family.reset(task, rng) for rng in rngs]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True, config=STRICT)
class GoalTask:
    """Reward 1 per tick within `radius` of the goal that counts.

    A family defines the number of goals `shown`, and draws `goals` (shown, 2), m, and the `slot`
    of the one that counts.
    """

    robot: ClassVar[str] = "omni"
    requires: ClassVar[tuple[str, ...]] = ("position",)
    measured: ClassVar[str] = "position"  # the term, m, that has to be in a goal
    places: ClassVar[bool] = False
    frame: ClassVar[str] = "odom"  # of the goals that are seen

    ticks: Count = 50  # length of an episode
    radius: Positive = 0.25  # m, of a goal

    @property
    def shown(self) -> int:
        """Number of visible goals."""
        raise NotImplementedError

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Positions of the goals; a perception node publishes them as a PoseArray."""
        return (goals_term(self.shown, self.frame),)

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw the goals and which one counts."""
        raise NotImplementedError

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add a flat disc for each goal, placed by its mocap body; it has no contacts."""
        for i in range(self.shown):
            add_disc(spec, f"goals_{i}", self.radius, COLORS[i % len(COLORS)])

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Positions of the scene's mocap bodies, (n, 2) by name."""
        return {f"goals_{i}": layout["goals"][:, i] for i in range(self.shown)}

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Positions of the goals as one term."""
        return {"goals": layout["goals"].reshape(len(layout["goals"]), -1)}

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) the goal that counts, m."""
        slot = layout["slot"].astype(np.intp)
        return layout["goals"][np.arange(len(slot)), slot]

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """1 inside the radius, else 0."""
        return self.success(layout, fields).astype(np.float64)

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """True inside the radius of the goal that counts."""
        return within(fields[self.measured], self.target(layout), self.radius)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """Always False: only time ends an episode."""
        return np.zeros(len(fields[self.measured]), bool)

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """The goal that counts."""
        return self.target(layout)

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """The first goal, whichever counts."""
        return layout["goals"][:, 0]

"""Shared by families with planar goals: all goals are observed, one of them is rewarded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, MujocoState, ObservationTerm, RosField
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.parameter_types import Count, Length
from sim.tasks.planar import to_base, within
from sim.tasks.scenery import GOAL_COLOR, add_disc

COLORS = ((0.86, 0.37, 0.16, 0.55), (0.16, 0.45, 0.78, 0.55), GOAL_COLOR)


def family_term(
    name: str,
    unit: str,
    frame: str,
    ros_type: str,
    ros_fields: Iterable[str],
    clip: tuple[float, float] | None = None,
    *,
    topic: str | None = None,
    max_age: float = 1.0,
    required_values: tuple[tuple[str, str], ...] = (),
) -> ObservationTerm:
    """A term that a family adds, without noise.

    Args:
        name: of the term, in what `fields` returns too.
        unit: of its values.
        frame: that they are in.
        ros_type: of the message.
        ros_fields: paths of the values in the message, one for each.
        clip: range in which the values are seen; None: as they are.
        topic: of the message; None: the name of the term.
        max_age: s, after which a value is too old.
        required_values: fields of the message and the values that they must have.
    """
    paths = tuple(ros_fields)
    return ObservationTerm(
        name=name,
        size=len(paths),
        unit=unit,
        frame=frame,
        scale=1.0,
        clip=clip,
        noise=0.0,
        max_age=max_age,
        limit=None,
        inf_values=None,
        mujoco=MujocoState(task=name),
        ros=RosField(
            topic=topic or name, type=ros_type, fields=paths, required_values=required_values
        ),
    )


def goals_term(
    shown: int, frame: str, clip: tuple[float, float] | None = None, *, axes: str = "xy"
) -> ObservationTerm:
    """The term of places, which a perception node publishes as a PoseArray.

    Args:
        shown: number of places.
        frame: that they are in.
        clip: range in which their coordinates are seen, m; None: as they are.
        axes: their coordinates: of places in the plane, or "xyz".
    """
    fields = (f"poses[{i}].position.{axis}" for i in range(shown) for axis in axes)
    return family_term("goals", "m", frame, "geometry_msgs/msg/PoseArray", fields, clip)


def seen_from_base(goals: Floats, robot: Fields) -> dict[str, Floats]:
    """The term's values for places (n, shown, 2) of the odom frame, m, relative to base_link."""
    relative = to_base(goals - robot["position"][:, None], robot)
    return {"goals": relative.reshape(len(relative), -1)}


def drawn_states(
    family: GoalTask, task: int, rngs: Sequence[np.random.Generator]
) -> dict[str, Floats]:
    """Draws of a family for the beginning of n episodes, (n, ...) by name."""
    rows = [family.reset(task, rng) for rng in rngs]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@dataclass(frozen=True, config=STRICT)
class GoalTask:
    """Reward 1 per tick within `radius` of the goal that counts.

    A family defines the number of goals `shown`, and draws `goals` (shown, d), m, and the `slot`
    of the one that counts. Goals have d coordinates: two in the plane, or three.
    """

    robot: ClassVar[str] = "omni"
    requires: ClassVar[tuple[str, ...]] = ("position",)
    measured: ClassVar[str] = "position"  # the term, m, that has to be in a goal
    places: ClassVar[bool] = False
    frame: ClassVar[str] = "odom"  # of the goals that are seen

    ticks: Count = 50  # length of an episode
    radius: Length = 0.25  # m, of a goal

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
        """Positions (n, 2) of the scene's mocap bodies, m, by name."""
        return {f"goals_{i}": layout["goals"][:, i, :2] for i in range(self.shown)}

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Positions of the goals, m, as one term (n, shown * d)."""
        return {"goals": layout["goals"].reshape(len(layout["goals"]), -1)}

    def target(self, layout: EpisodeState) -> Floats:
        """(n, d) the goal that counts, m."""
        slot = layout["slot"].astype(np.intp)
        return layout["goals"][np.arange(len(slot)), slot]

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) 1 inside the radius, else 0."""
        return self.success(layout, fields).astype(np.float64)

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True inside the radius of the goal that counts."""
        return within(fields[self.measured], self.target(layout), self.radius)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) always False: only time ends an episode."""
        return np.zeros(len(fields[self.measured]), bool)

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) the goal that counts, m."""
        return self.target(layout)

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) the first goal, whichever counts, m."""
        return layout["goals"][:, 0]

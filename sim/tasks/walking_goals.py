"""Shared by families with goals for robots that walk: relative to the robot, with a dense reward.

A robot that walks has no command for its base, so that no simple controller drives it to a goal.
Its reference returns are those of a point that turns towards the goal and then goes straight, with
the robot's measured speed and rate of turning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative, ObservationTerm
from sim.seeding import episode_rng
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.goals import GoalTask, drawn_states, goals_term, seen_from_base
from sim.tasks.parameter_types import Count, Length, Speed, TurnRate
from sim.tasks.running import FALLEN, leans

# Masters do not observe the joints, nor where the robot is: the goals are relative to it.
HIDDEN_FROM_MASTERS = (
    *("position", "orientation", "height", "angular_velocity", "projected_gravity"),
    *("joint_position", "joint_velocity", "previous_action"),
    *("hip", "ankle", "hip_velocity", "ankle_velocity"),
)
POSE = ("position", "orientation")
# Recommended where walls have fixed places: masters observe the pose and nothing else. Skills
# observe neither the pose nor `goals`, which are the same in every episode or begin at the start.
MASTERS_SEE_THE_POSE: Mapping[str, Any] = {
    "network.hidden_from_skills": [*POSE, "goals"],
    "network.hidden_from_masters": [
        *("goals", *(name for name in HIDDEN_FROM_MASTERS if name not in POSE))
    ],
}
# m, to each side: of a place that is farther away a master observes only the side. To turn
# towards a goal needs a sign, to stop at it needs distances around the radius.
NEAR = 0.7
ARRIVED = 1e-9  # m; a point that is nearer than that to its target does not turn to it
FRESH = 0.2  # s, age of the goals; in a second the robot walks and turns past older ones
BASE = (("header.frame_id", "base_link"),)  # the frame of the goals


def goals_from_base(shown: int) -> ObservationTerm:
    """The term of all families for robots that walk: places relative to base_link."""
    term = goals_term(shown, "base_link", clip=(-NEAR, NEAR))
    return replace(term, max_age=FRESH, ros=replace(term.ros, required_values=BASE))


@dataclass(frozen=True, config=STRICT)
class WalkingGoals(GoalTask):
    """Goals relative to a robot that begins with any heading; sizes are for a robot of 0.7 m."""

    robot: ClassVar[str] = "go2"
    requires: ClassVar[tuple[str, ...]] = ("position", "orientation")
    draws: ClassVar[int] = 256  # episodes of the point, for the reference returns
    places: ClassVar[bool] = True
    # Skills walk, wherever they are; masters see the goals, and nothing of the joints.
    recommended: ClassVar[Mapping[str, Any]] = {
        "mlsh.decision_ticks": 25,
        "mlsh.rollout_ticks": 600,
        "mlsh.envs": 16,
        "network.hidden_from_skills": [*POSE],
        "network.hidden_from_masters": [*HIDDEN_FROM_MASTERS],
    }

    ticks: Count = 600  # length of an episode: 12 s at 50 Hz
    radius: Length = 0.4  # m, of a goal
    speed: Speed = 0.8  # m/s, measured full speed of the robot, for the reference returns
    turning: TurnRate = 1.0  # rad/s, measured turning rate of the robot, likewise
    approach: NonNegative = 1.0  # reward per tick in which the robot comes nearer at full speed

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Positions of the goals relative to base_link."""
        return (goals_from_base(self.shown),)

    def begin(self, drawn: dict[str, Floats], rng: np.random.Generator) -> dict[str, Floats]:
        """Add a start at the origin with any heading to the rows that an episode has drawn."""
        return self.started({**drawn, "start": np.array([0.0, 0.0, rng.uniform(-np.pi, np.pi)])})

    def started(self, drawn: dict[str, Floats]) -> dict[str, Floats]:
        """Add the length of the path to the goal to the rows of an episode, its start included."""
        layout = {name: np.asarray(value)[None] for name, value in drawn.items()}
        distance = self.left(layout, layout["start"][:, :2])[0]
        return {**drawn, "distance": distance, "nearer": np.float64(0)}

    def left(self, layout: EpisodeState, position: Floats) -> Floats:
        """(n,) length of the path from positions (n, 2) to the goal that counts, m."""
        return np.asarray(np.linalg.norm(position - self.target(layout), axis=1))

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Positions of the goals relative to base_link, m, as one term (n, 2 * shown)."""
        return seen_from_base(layout["goals"], robot)

    def progress(
        self, layout: EpisodeState, changes: dict[str, Floats], fields: Fields, dt: float
    ) -> dict[str, Floats]:
        """Add the fraction (n,) of full speed at which the robot came nearer to its goal.

        Args:
            layout: before the tick.
            changes: of it by the tick, which may make another goal count.
            fields: after the tick.
            dt: s per tick.
        """
        position = fields["position"]
        distance = self.left(layout, position)
        following = self.left({**layout, **changes}, position) if changes else distance
        nearer = (layout["distance"] - distance) / (self.speed * dt)
        return {**changes, "nearer": nearer, "distance": following}

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) 1 inside the radius; outside, `approach` times the fraction of full speed."""
        inside = self.success(layout, fields)
        return np.where(inside, 1.0, self.approach * layout["nearer"])

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the robot has fallen."""
        return leans(fields["orientation"], FALLEN)

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True inside the radius of the goal that counts, unless the robot has fallen."""
        return super().success(layout, fields) & ~self.terminated(layout, fields)

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Mean returns of a point that goes to the first goal, and to the one that counts."""
        return (
            self._walked(task, dt, self.task_blind_target),
            self._walked(task, dt, self.expert_target),
        )

    def _walked(
        self, task: int, dt: float, target: Callable[[EpisodeState, Fields], Floats]
    ) -> float:
        layout = drawn_states(self, task, [episode_rng(0, n) for n in range(self.draws)])
        position, heading = layout["start"][:, :2].copy(), layout["start"][:, 2].copy()
        upright = np.tile([1.0, 0.0, 0.0, 0.0], (self.draws, 1))
        total, fields = 0.0, {"position": position, "orientation": upright}
        for tick in range(self.ticks):
            offset = target(layout, fields) - position
            distance = np.linalg.norm(offset, axis=1)
            bearing = (np.arctan2(offset[:, 1], offset[:, 0]) - heading + np.pi) % (2 * np.pi)
            away = np.where(distance > ARRIVED, bearing - np.pi, 0.0)
            turn = np.clip(away, -self.turning * dt, self.turning * dt)
            heading += turn
            step = np.where(turn == away, np.minimum(self.speed * dt, distance), 0.0)
            position = position + step[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
            fields["position"] = position
            layout |= self.advance(layout, fields, dt)
            paid = float(self.reward(layout, fields).mean())
            total += paid
            if not turn.any() and (step <= ARRIVED).all():  # and so it stays
                return total + paid * (self.ticks - 1 - tick)
        return total

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """New values (n,) of the layout after a tick of `dt` s."""
        return self.progress(layout, {}, fields, dt)

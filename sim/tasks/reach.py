"""Reach: an arm sees targets, one of them counts, and which one is hidden.

Each target is a button: it is pressed while the arm's tool is within its radius, and the panel
publishes which one is. Good skills are "go to the first target", "go to the second target" and so
on, from wherever the arm is, and `reach_sequence` asks for them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

from sim.interface import STRICT, Floats, ObservationTerm
from sim.seeding import episode_rng
from sim.tasks.base import EpisodeState, Fields
from sim.tasks.family_calls import FamilyCalls
from sim.tasks.goals import GoalTask, drawn_states, family_term, goals_term
from sim.tasks.parameter_types import Angle, Count, Length
from sim.tasks.planar import within
from sim.tasks.reference_arm import ReferenceArm
from sim.tasks.two_link_arm import ARM

MOST = 4  # targets, which have room beside each other
FARTHEST_APART = 0.25  # m, that so many can be
NEAR = 0.2  # m, over which the reward falls by e
DRAWS = 256  # episodes of the reference returns


def pressed_term(shown: int) -> ObservationTerm:
    """The term of a panel of buttons: 1 for each that is pressed, else 0."""
    buttons = (f"buttons[{i}]" for i in range(shown))
    return family_term("pressed", "1", "base_link", "sensor_msgs/msg/Joy", buttons)


@dataclass(frozen=True, config=STRICT)
class Reach(GoalTask):
    """The task is the target that counts.

    Any robot whose `tool_position` has two coordinates can have it. The places of the targets and
    the reference returns are made for the robot `arm`.
    """

    name: ClassVar[str] = "reach"
    robot: ClassVar[str] = "arm"
    requires: ClassVar[tuple[str, ...]] = ("tool_position",)
    term_sizes: ClassVar[Mapping[str, int]] = {"tool_position": 2}
    arm: ClassVar[ReferenceArm] = ARM
    measured: ClassVar[str] = "tool_position"
    frame: ClassVar[str] = "base_link"
    pose_reset: ClassVar[int] = 0
    # How to get to a target does not depend on which one is pressed.
    recommended: ClassVar[Mapping[str, Any]] = {
        "mlsh.skills": 3,
        "mlsh.decision_ticks": 60,
        "mlsh.rollout_ticks": 120,
        "mlsh.envs": 16,
        "skill.learning_rate": 0.002,
        "skill.minibatch": 2048,
        "network.initial_log_std": -0.7,
        "network.hidden_from_skills": ["pressed"],
    }

    ticks: Count = 120  # length of an episode: 2.4 s at 50 Hz
    shown: Annotated[int, Field(gt=0, le=MOST)] = 3  # number of targets
    radius: Length = 0.05  # m, of a target
    separation: Length = 0.2  # m, the smallest distance between two targets
    shake: Angle = 0.8  # rad, largest deviation of every joint at the start

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if not 2 * self.radius < self.separation <= FARTHEST_APART:
            raise ValueError(
                f"separation {self.separation} must be above twice the radius {self.radius}, and "
                f"at most {FARTHEST_APART}"
            )
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        """target-0, target-1, target-2."""
        return tuple(f"target-{i}" for i in range(self.shown))

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Positions of the targets, which a camera knows, and which one is pressed."""
        axes = "xyz"[: self.term_sizes[self.measured]]
        return (goals_term(self.shown, self.frame, axes=axes), pressed_term(self.shown))

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw targets that the arm can reach, at least `separation` apart, whatever the task."""
        return {**self.targets(rng), "slot": np.float64(task)}

    def targets(self, rng: np.random.Generator) -> dict[str, Floats]:
        """Positions of targets (shown, d), m, and the joints (shown, J) that reach them, rad."""
        while True:
            goals, joints = self.arm.draw(rng, self.shown)
            distances = np.linalg.norm(goals[:, None] - goals, axis=-1)
            if (distances[np.triu_indices(self.shown, 1)] >= self.separation).all():
                return {"goals": goals, "joints": joints}

    def inside(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n, shown) True where the tool is within the radius of a target; of one at most."""
        return within(fields[self.measured][:, None], layout["goals"], self.radius)

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Positions (n, shown * d) of the targets, m, and (n, shown) which one is pressed."""
        pressed = self.inside(layout, robot).astype(np.float64)
        return {**super().fields(layout, robot), "pressed": pressed}

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) 1 at the target that counts, e times less every 20 cm."""
        distance = np.linalg.norm(fields[self.measured] - self.target(layout), axis=-1)
        return np.asarray(np.exp(-distance / NEAR))

    # Reference returns: the robot's servos at their limits, see reference_arm.py --------------

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Mean returns of going to the first target whichever counts, and to the one that does."""
        return (
            self.scripted(task, dt, lambda layout: np.zeros(len(layout["slot"]), np.intp)),
            self.scripted(task, dt, lambda layout: layout["slot"].astype(np.intp)),
        )

    def scripted(
        self, task: int, dt: float, choose: Callable[[EpisodeState], NDArray[np.intp]]
    ) -> float:
        """Mean return of an arm that moves as fast as its servos may.

        Args:
            task: its number.
            dt: s per tick.
            choose: number (n,) of the target to go to, given the layout of n episodes.
        """
        rngs = [episode_rng(0, n) for n in range(DRAWS)]
        layout = drawn_states(self, task, rngs)
        home = np.array(self.arm.home)
        joints = home + [rng.uniform(-self.shake, self.shake, len(home)) for rng in rngs]
        command, each, total = joints, np.arange(DRAWS), 0.0
        calls = FamilyCalls(self)
        for _ in range(self.ticks):
            aims = self.arm.aim(joints, layout["joints"][each, choose(layout)])
            joints, command = self.arm.follow(joints, command, aims, dt)
            fields = {self.measured: self.arm.tip(joints)}
            layout |= calls.advance(layout, fields, dt)
            total += float(self.reward(layout, fields).mean())
        return total

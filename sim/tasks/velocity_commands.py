"""Velocity commands: a robot with a floating base walks as it is told; the command is the task.

Skills do not see the command, so that training breeds a skill for each. With `shown` every policy
sees it, and one skill can serve all commands. An episode ends when the robot falls: its base leans
by more than 1 rad or touches something. It is solved when the mean velocity after the first second
was the command within `speed_tolerance` and `turn_tolerance`.

The reward is a sum of named terms, `rewards`, whose default weights are those of
`sim/tasks/rewards/walking.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, SkipValidation
from pydantic.dataclasses import dataclass

from sim.interface import STRICT, Floats, NonNegative, ObservationTerm, fold
from sim.interface.mirror import TermMirror
from sim.physics.signals import Signal
from sim.tasks.base import EpisodeState, Fields, HiddenTask
from sim.tasks.goals import family_term
from sim.tasks.ground import Ground, ground_of
from sim.tasks.parameter_types import (
    Angle,
    Count,
    LengthOrZero,
    Seconds,
    Speed,
    TurnRate,
)
from sim.tasks.planar import ahead_of, to_base
from sim.tasks.rewards import Rewards, changing, read_rewards
from sim.tasks.rewards.parts import BASE
from sim.tasks.rewards.terms import (
    kernel,
    speed_along_command,
    track_velocity,
    track_yaw_rate,
    turn_along_command,
)
from sim.tasks.running import FALLEN, leans
from sim.tasks.walking_goals import HIDDEN_FROM_MASTERS

WALKING = read_rewards(Path(__file__).with_name("rewards") / "walking.yaml")
# Direction of each task: ahead, left, and counter-clockwise.
DIRECTIONS = {
    "ahead": (1.0, 0.0, 0.0),
    "back": (-1.0, 0.0, 0.0),
    "turn_left": (0.0, 0.0, 1.0),
    "turn_right": (0.0, 0.0, -1.0),
    "stand": (0.0, 0.0, 0.0),
    "left": (0.0, 1.0, 0.0),
    "right": (0.0, -1.0, 0.0),
}
IMAGES = {"turn_left": "turn_right", "left": "right"}  # left and right exchanged; else: itself
IMAGES |= {other: one for one, other in IMAGES.items()}
SEEN = "projected_gravity"  # all that is left for masters: how the robot leans
TOUCHES = 1.0  # N: a base with more than that lies on the ground
TOPIC, TYPE = "velocity_command", "geometry_msgs/msg/TwistStamped"


def _own(data: object) -> object:
    return data if isinstance(data, Rewards) else changing(WALKING, data)


def _term(name: str, unit: str, fields: tuple[str, ...]) -> ObservationTerm:
    required = (("header.frame_id", BASE),)
    return family_term(
        name, unit, BASE, TYPE, fields, topic=TOPIC, max_age=0.5, required_values=required
    )


@dataclass(frozen=True, config=STRICT)
class VelocityCommands(HiddenTask):
    """The task is the direction of the command."""

    name: ClassVar[str] = "velocity_commands"
    robot: ClassVar[str] = "go2"
    requires: ClassVar[tuple[str, ...]] = ("position", "orientation")
    places: ClassVar[bool] = True
    all_tasks: ClassVar[dict[str, int]] = {"commands": len(DIRECTIONS)}
    pose_reset: ClassVar[int] = 0
    signals: ClassVar[tuple[Signal, ...]] = (
        Signal("base", "contact_force", "body", (BASE,)),
        # For value functions: rewards are of a velocity that no policy sees.
        Signal("base_linear_velocity", "linear_velocity", "body", (BASE,)),
    )
    # Five skills for five commands. Walking needs neither place nor heading, and the choice of a
    # master depends on nothing that is seen. A skill that is pulled ahead and back alike stands
    # still for ever: long joint phases and a large bonus give each command a skill of its own
    # before any of them walks. A robot that stands needs wide exploration and small costs to find
    # its first step, and little exploration at last, without which it has to walk. The probe would
    # take a skill that walks a little for one that nobody needs: standing earns nearly as much.
    # Under the whole randomization from the first step on nobody finds a step: it grows.
    recommended: ClassVar[Mapping[str, Any]] = {
        "mlsh.skills": 5,
        "mlsh.decision_ticks": 50,
        "mlsh.rollout_ticks": 100,
        "mlsh.groups": 6,
        "mlsh.envs": 16,
        "mlsh.warmup": 2,
        "mlsh.joint": 60,
        "mlsh.mutual_information_coef": 2.0,
        "mlsh.reset_skill_below": 0.0,
        "skill.learning_rate": 5e-4,
        "skill.entropy": 0.01,
        "exploration.correlation": 0.5,
        "exploration.final_std": 0.2,
        "exploration.std_until": 0.85,
        "curriculum.cost_scale": 0.2,
        "curriculum.cost_until": 0.5,
        "curriculum.randomization_until": 0.6,
        "domain_randomization": True,
        "regularization.symmetry": "augmentation",
        "network.privileged": ["base", "base_linear_velocity", "sim_params"],
        "network.hidden": [128, 128],
        "network.hidden_from_skills": ["position", "orientation"],
        "network.hidden_from_masters": [n for n in HIDDEN_FROM_MASTERS if n != SEEN],
    }

    ticks: Count = 500  # length of an episode: 10 s at 50 Hz
    commands: Annotated[int, Field(ge=2, le=len(DIRECTIONS))] = 5  # number of tasks
    ahead: Speed = 0.8  # m/s, of the command to walk ahead
    back: Speed = 0.5  # m/s, of the command to walk back
    aside: Speed = 0.4  # m/s, of the commands to walk to the left and to the right
    turn: TurnRate = 1.0  # rad/s, of the commands to turn
    # Part of a command by which it may be weaker, drawn per episode: 1 is from standing to full.
    spread: Annotated[NonNegative, Field(le=1)] = 0.0
    # Part of a command that the easiest episodes of a training have, see the setting
    # `curriculum.difficulty_until`: a robot learns to walk slowly before it walks fast.
    slowest: Annotated[float, Field(gt=0, le=1)] = 1.0
    shown: bool = False  # whether policies see the command, as a TwistStamped
    speed_tolerance: Speed = 0.1  # m/s, of the mean velocity, for success
    turn_tolerance: TurnRate = 0.15  # rad/s, of the mean rate of turning, for success
    settling: Seconds = 1.0  # s at the start of an episode that success does not judge
    shake: Angle = 0.05  # rad, largest deviation of every joint at the start
    # The ground, flat by default: the hardest that there is of each kind. An episode begins on one
    # of `levels` levels between flat and that; see `sim/tasks/ground.py`.
    slope: Annotated[NonNegative, Field(le=1)] = 0.0  # m per m, gradient of slopes
    step: Annotated[LengthOrZero, Field(le=0.5)] = 0.0  # m, height of stairs
    bumps: Annotated[LengthOrZero, Field(le=0.5)] = 0.0  # m, height and depth of bumps
    levels: Annotated[Count, Field(ge=2, le=20)] = 6  # from flat to the hardest
    # Weights and parameters of reward terms that differ from those of `walking.yaml`.
    rewards: Annotated[SkipValidation[Rewards], BeforeValidator(_own)] = WALKING

    @property
    def graded(self) -> bool:
        """True if there are easy episodes, with slow commands or on flat ground."""
        return self.uneven or self.slowest < 1

    @property
    def uneven(self) -> bool:
        """True if there are several levels of ground."""
        return bool(self.slope or self.step or self.bumps)

    @property
    def _ground(self) -> Ground:
        return ground_of(self.slope, self.step, self.bumps, self.levels)

    def ground(self, xy: Floats) -> Floats:
        """(...) heights of the ground at places (..., 2), m."""
        return self._ground.height(xy) if self.uneven else np.zeros(xy.shape[:-1])

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Replace the floor, unless the ground is flat."""
        if self.uneven:
            self._ground.add_to(spec, f"task family {self.name!r}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The first `commands` directions."""
        return tuple(DIRECTIONS)[: self.commands]

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """The command, if it is shown."""
        if not self.shown:
            return ()
        return (
            _term("velocity_command", "m/s", ("twist.linear.x", "twist.linear.y")),
            _term("turn_command", "rad/s", ("twist.angular.z",)),
        )

    @property
    def mirrored_tasks(self) -> tuple[int, ...]:
        """The task of each one's mirror image; -1 if it is not among the commands."""
        tasks = self.tasks
        images = (IMAGES.get(name, name) for name in tasks)
        return tuple(tasks.index(image) if image in tasks else -1 for image in images)

    @property
    def mirror(self) -> dict[str, TermMirror]:
        """The mirror image of the command."""
        signs = {"velocity_command": (1, -1), "turn_command": (-1,)}
        return {term.name: TermMirror(signs=signs[term.name]) for term in self.terms}

    @property
    def shows_task(self) -> bool:
        """True if policies see the command."""
        return self.shown

    def full(self, task: int) -> Floats:
        """(3,) the command of a task at its full speed: ahead, left, counter-clockwise."""
        x, y, turn = DIRECTIONS[self.tasks[task]]
        along = x * (self.ahead if x > 0 else self.back)
        return np.array([along, y * self.aside, turn * self.turn])

    def reset(
        self, task: int, rng: np.random.Generator, difficulty: float = 1.0
    ) -> dict[str, Floats]:
        """Begin with any heading, at the origin or in the middle of a patch of ground.

        Args:
            task: its number.
            rng: draws the heading, the command of the task, and kind and level of the ground.
            difficulty: 0 to 1: the levels that are drawn, from flat ground alone to all of them;
                and the command, from its slowest to its full speed.
        """
        heading, weaker = rng.uniform(-np.pi, np.pi), rng.uniform(0, self.spread)
        x = y = 0.0
        if self.uneven:
            kind = int(rng.integers(len(self._ground.kinds)))
            level = int(rng.uniform() * (1 + difficulty * (self.levels - 1)))
            x, y = self._ground.center(kind, min(level, self.levels - 1))
        start = np.array([x, y, heading])
        return {
            "start": start,
            "given": self.full(task) * (1 - (1 - self.slowest) * (1 - difficulty)) * (1 - weaker),
            "before": start.copy(),  # pose at the previous tick: m, m, rad
            "error": np.zeros(3),  # sum over the ticks that are judged
            "elapsed": np.float64(0),  # s
            "judged": np.float64(0),  # ticks
        }

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """The command as two terms, if it is shown."""
        if not self.shown:
            return {}
        return {"velocity_command": layout["given"][:, :2], "turn_command": layout["given"][:, 2:]}

    def command(self, layout: EpisodeState) -> Floats:
        """(n, 3) the command: ahead and left, m/s, counter-clockwise, rad/s."""
        return layout["given"]

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """Add the error of the mean velocity over a tick of `dt` s, in the robot's frame."""
        cos, sin = ahead_of(fields["orientation"])
        heading = np.arctan2(sin, cos)
        pose = np.column_stack([fields["position"], heading])
        moved = pose - layout["before"]
        velocity = np.column_stack([to_base(moved[:, :2], fields), fold(moved[:, 2])]) / dt
        elapsed = layout["elapsed"] + dt
        judged = elapsed > self.settling + dt / 2  # sums of ticks are not exact
        error = np.where(judged[:, None], velocity - layout["given"], 0.0)
        return {
            "before": pose,
            "error": layout["error"] + error,
            "elapsed": elapsed,
            "judged": layout["judged"] + judged,
        }

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) 0: all of the reward is in its terms."""
        return np.zeros(len(layout["elapsed"]))

    def mean_error(self, layout: EpisodeState) -> Floats:
        """(n, 3) mean velocity less the command, over the ticks that are judged."""
        return np.asarray(layout["error"] / np.maximum(layout["judged"], 1)[:, None])

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the mean velocity is the command within the tolerances, without a fall."""
        error = self.mean_error(layout)
        near = np.linalg.norm(error[:, :2], axis=1) < self.speed_tolerance
        near &= np.abs(error[:, 2]) < self.turn_tolerance
        return np.asarray(near & (layout["judged"] > 0) & ~self.terminated(layout, fields))

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the robot has fallen: it leans too far, or its base touches something."""
        return leans(fields["orientation"], FALLEN) | (fields["base"][:, 0] > TOUCHES)

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Returns of the best command for all tasks, and of the task's own, without costs."""
        full = np.array([self.full(i) for i in range(len(self.tasks))])
        earned = np.array([[self._earned(done, told) for told in full] for done in full])
        same = earned[int(earned.sum(axis=1).argmax())]
        return float(same[task] * self.ticks), float(earned[task, task] * self.ticks)

    def _earned(self, done: Floats, told: Floats) -> float:
        """Reward of a tick in which a robot does one command and is told another."""
        error = (done - told)[None]
        told_speed = float(told[:2] @ told[:2])
        along = float(done[:2] @ told[:2] / told_speed) if told_speed else 0.0
        turn = float(done[2] / told[2]) if told[2] else 0.0
        earned: dict[Callable[..., Floats], Callable[..., float]] = {
            track_velocity: lambda **p: float(kernel(error[:, :2], **p)[0]),
            track_yaw_rate: lambda **p: float(kernel(error[:, 2:], **p)[0]),
            speed_along_command: lambda enough: float(np.clip(along / enough, -1, 1)),
            turn_along_command: lambda enough: float(np.clip(turn / enough, -1, 1)),
        }
        return sum(
            each.weight * earned[each.term.function](**dict(each.parameters))
            for each in self.rewards.terms
            if each.term.function in earned
        )

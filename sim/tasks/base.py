"""The Protocol of task families (`TaskFamily`) and the optional Protocols that extend it.

A family defines the terms that it adds, what an episode draws, reward, success and the walls. Its
file is in this folder; docs/add-a-task.md writes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, ObservationTerm
from sim.interface.mirror import TermMirror
from sim.physics.signals import Signal
from sim.tasks.rewards import Rewards

Fields = Mapping[str, Floats]  # per term (n, size)
EpisodeState = dict[
    str, Floats
]  # what each episode drew, per name (n, ...): goals, which one counts

# A parameter of this name excludes the last tasks from training; the others keep their number.
HELD_OUT = "held_out"
# A family that does not have all its tasks by default has a class variable `all_tasks`: the
# parameters with which it has them, to find a task by its name.


class TaskFamily(Protocol):
    """A distribution of tasks on one scene; the observation does not contain the task.

    A family is a frozen dataclass of its parameters. A task is a number, the index into `tasks`;
    it decides what `reset` draws, and everything after that reads the layout of the episode.
    All calls but `reset` are for n simulations at once.
    """

    name: ClassVar[str]
    robot: ClassVar[str]  # the shipped robot that it is meant for
    requires: ClassVar[tuple[str, ...]]  # observation terms that the robot must have
    places: ClassVar[bool]  # whether `reset` draws a `start`: x, y in m, heading in rad

    @property
    def ticks(self) -> int:
        """Number of ticks after which an episode is truncated."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names; a task's number is its index here."""

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Observation terms that the family adds to the robot's."""

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add goals, walls and so on to the robot's model."""

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Poses of the scene's mocap bodies, m, (n, 2) or (n, 3) by name.

        Used for rendering, and in the simulation for a family that is `HasObstacles`.
        """

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw one episode of a task: its row of every layout entry."""

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Values of the family's own terms, (n, size), given those of the robot's."""

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) rewards for the state after a tick."""

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the state counts as solved; evaluated at the end of an episode."""

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) True if the episode ends here for a reason of the task (not of time)."""


class HiddenTask:
    """Base of families that show nothing of the task, on the robot's plain scene."""

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Empty: the task is hidden."""
        return ()

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Adds nothing."""

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Empty: the scene has no mocap bodies."""
        return {}

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Empty: the family has no terms."""
        return {}

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) always False: only time ends an episode."""
        return np.zeros(len(fields["position"]), bool)


# A family may have a class variable `recommended`: settings of a training by the names that
# `mlsh train --set` has, such as {"mlsh.rollout_ticks": 100}. The learner checks these plain data.


# Optional Protocols. A family has those that it needs; `FamilyCalls` looks which they are.


@runtime_checkable
class HasExpert(Protocol):
    """Task family with an expert target, so that its reference returns are simulated."""

    def expert_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) target of a controller that knows the task, m; it defines the optimum.

        In the frame of the robot's `position`; `sim.tasks.expert_controller` converts it to
        commands.
        """

    def task_blind_target(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) target of a good controller that ignores the task, m."""


@runtime_checkable
class HasTarget(Protocol):
    """Task family with a goal that counts; pictures mark it, with the parameter `radius`, m."""

    def target(self, layout: EpisodeState) -> Floats:
        """(n, 2) or (n, 3) the goal that counts, m."""


@runtime_checkable
class HasReturnEstimate(Protocol):
    """Task family with estimated reference returns, for robots without a scripted controller."""

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Returns of a good controller that ignores the task, and of one that knows it.

        Args:
            task: its number.
            dt: s per tick.
        """


@runtime_checkable
class HasTermSizes(Protocol):
    """Task family that takes some of the terms in `requires` in one size only."""

    requires: ClassVar[tuple[str, ...]]  # as of every family
    term_sizes: Mapping[str, int]  # number of elements; a robot with another one is refused


@runtime_checkable
class HasObstacles(Protocol):
    """Task family with obstacles whose poses differ from episode to episode."""

    solid: bool  # the mocap bodies of `place` are put there when an episode begins


@runtime_checkable
class HasTaskDynamics(Protocol):
    """Task family whose layout changes with every tick."""

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """New values (n, ...) of layout entries, given the state after a tick of `dt` s.

        Called before the reward of that tick is computed. The entries are part of what `reset`
        draws.
        """


@runtime_checkable
class HasActionCost(Protocol):
    """Task family that subtracts a cost of the action from the reward."""

    def cost(self, action: Floats) -> Floats:
        """(n,) cost of the executed action (n, A), within its limits."""


@runtime_checkable
class HasPoseReset(Protocol):
    """Task family that perturbs or resets joint positions."""

    shake: float  # rad; an episode begins with every hinge this far from its default, at most
    pose_reset: int  # ticks after which the robot is put upright where it stands; 0: never


@runtime_checkable
class HasSignals(Protocol):
    """Task family whose reward, success or end of an episode needs what no robot measures.

    `reward`, `success` and `terminated` find the signals in `fields`, by name. `advance` and
    `fields` do not receive them, so that no observation depends on one.
    """

    signals: tuple[Signal, ...]  # of the simulation; their parts have to be in the robot's model


@runtime_checkable
class HasRewards(Protocol):
    """Task family to whose reward the weighted values of named reward terms are added.

    A family whose terms track a command has a method `command(layout)` too, which returns (n, 3):
    the speeds ahead and to the left, m/s, and the rate counter-clockwise, rad/s.
    """

    rewards: Rewards  # terms of `sim.tasks.rewards.TERMS` and of one's own, with their weights


@runtime_checkable
class HasGround(Protocol):
    """Task family on ground that is not flat, for reward terms that measure heights above it."""

    def ground(self, xy: Floats) -> Floats:
        """(...) heights of the ground at places (..., 2), m."""


@runtime_checkable
class HasDifficulty(Protocol):
    """Task family whose episodes are easy or hard, so that a training can begin with easy ones.

    Its `reset` has a third argument, `difficulty`: the hardest that an episode may be, 0 to 1.
    """

    graded: bool  # whether the difficulty changes anything


@runtime_checkable
class HasMirror(Protocol):
    """Task family that states the mirror images of its tasks: left and right exchanged.

    Reward, start and end of an episode have to be the same in the mirror.
    """

    # For each task the number of its mirror image; -1: that is no task of the family.
    mirrored_tasks: tuple[int, ...]
    mirror: Mapping[str, TermMirror]  # of each observation term that the family adds
    shows_task: bool  # whether these terms show which task counts

"""The Protocol of task families and the optional Protocols that extend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.interface import Floats, ObservationTerm

Fields = Mapping[str, Floats]  # per term (n, size)
EpisodeState = dict[
    str, Floats
]  # what each episode drew, per name (n, ...): goals, which one counts

# A parameter of this name keeps tasks, the last ones, from training; the others keep their number.
HELD_OUT = "held_out"
# A family whose default has fewer tasks than there are says in a class variable `all_tasks`, by
# name, with which parameters it has all of them: for whoever asks for a task by its name.


class TaskFamily(Protocol):
    """A distribution of tasks on one scene; which task it is stays hidden from the observation.

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
        """Until an episode is truncated."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names; a task's number is its place here."""

    @property
    def terms(self) -> tuple[ObservationTerm, ...]:
        """Observation terms that the family adds to the robot's."""

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Add goals, walls and so on to the robot's model."""

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Where the scene's mocap bodies stand, m, (n, 2) or (n, 3) by name.

        For pictures; they stand there in the simulation, too, where a family `HasObstacles`.
        """

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Draw one episode of a task: its row of every layout entry."""

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Values of the family's own terms, (n, size), given those of the robot's."""

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) rewards for the state after a tick."""

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) whether the state counts as solved; judged at the end of an episode."""

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) whether the episode ends here for a reason of the task (not of time)."""


# A family may say in a class variable `recommended` with which settings it is learned, by name as
# `mlsh train --set` has it: {"mlsh.rollout_ticks": 100}. Plain data, which the learner checks.


# What a family may say besides. None of it is asked for; the world looks whether it is there.


@runtime_checkable
class HasExpert(Protocol):
    """Knows where to drive: the bounds of its tasks are simulated."""

    def expert(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) where to head for when one knows the task, m; it defines the optimum.

        In the frame of the robot's `position`; `sim.tasks.expert_controller` makes commands of it.
        """

    def collapsed(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n, 2) where a good controller that ignores the task would head for, m."""


@runtime_checkable
class HasReturnEstimate(Protocol):
    """Knows what returns are possible, where nobody can write the controller: robots with legs."""

    def estimate(self, task: int, dt: float) -> tuple[float, float]:
        """Returns of a good controller that ignores the task, and of one that knows it.

        Args:
            task: its number.
            dt: s per tick.
        """


@runtime_checkable
class HasObstacles(Protocol):
    """Has things to bump into that stand elsewhere in every episode."""

    solid: bool  # the mocap bodies of `place` are put there when an episode begins


@runtime_checkable
class HasTaskDynamics(Protocol):
    """Has a layout that goes on with every tick."""

    def advance(self, layout: EpisodeState, fields: Fields, dt: float) -> dict[str, Floats]:
        """New values (n, ...) of layout entries, given the state after a tick of `dt` s.

        Before that tick is judged. The entries are part of what `reset` draws.
        """


@runtime_checkable
class HasActionCost(Protocol):
    """Takes something off the reward for what the robot was told to do."""

    def cost(self, action: Floats) -> Floats:
        """(n,) of the action (n, A) that was in force, within its limits."""


@runtime_checkable
class HasPoseReset(Protocol):
    """Has a say in the robot's joints."""

    shake: float  # rad; an episode begins with every hinge this far from its default, at most
    pose_reset: int  # ticks after which the robot is put upright where it stands; 0: never

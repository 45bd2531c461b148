"""The reference of a comparison: the bundle that controlled the robot, or a robot alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import mujoco
import numpy as np
from numpy.typing import NDArray

from mlsh_ros.sim2real.data.signals import Signals
from policies.bundle.bound_bundle import load_bound
from policies.bundle.bundle import Bundle, pretrained_names
from policies.bundle.task_compatibility import resolve_task, select_tasks
from sim.errors import unknown
from sim.interface import Floats, ObservationTerm
from sim.interface.bindings import bind, read_bindings
from sim.physics.robot_model import Robot, load_robot, robot_names
from sim.tasks.base import EpisodeState, Fields, TaskFamily
from sim.tasks.task_id import TaskId

Target = Bundle | Robot


@dataclass(frozen=True)
class NoTask:
    """Task family for a robot alone: without scenery and rewards."""

    name: ClassVar[str] = "no task"
    robot: ClassVar[str] = ""
    requires: ClassVar[tuple[str, ...]] = ()
    places: ClassVar[bool] = False
    ticks: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("none",)
    terms: ClassVar[tuple[ObservationTerm, ...]] = ()

    def scene(self, spec: mujoco.MjSpec) -> None:
        """Adds nothing."""

    def place(self, layout: EpisodeState) -> dict[str, Floats]:
        """Empty: the scene has no mocap bodies."""
        return {}

    def reset(self, task: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Empty: the layout has no entries."""
        return {}

    def fields(self, layout: EpisodeState, robot: Fields) -> dict[str, Floats]:
        """Empty: the family has no terms."""
        return {}

    def reward(self, layout: EpisodeState, fields: Fields) -> Floats:
        """(n,) zeros."""
        return np.zeros(_count(fields))

    def success(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) false."""
        return np.zeros(_count(fields), bool)

    def terminated(self, layout: EpisodeState, fields: Fields) -> NDArray[np.bool_]:
        """(n,) false."""
        return np.zeros(_count(fields), bool)


def _count(fields: Fields) -> int:
    return len(next(iter(fields.values())))


def load_target(name: str, bindings: str = "") -> Target:
    """Load a bundle or a robot, shipped by name or by path; a folder with robot.yaml is a robot.

    Args:
        name: or path.
        bindings: file with topics, message types and fields in place of its own; empty: none.

    Raises:
        UserError: there is none, or it is invalid.
    """
    if name in robot_names() or (Path(name) / "robot.yaml").is_file():
        robot = load_robot(name)
        if not bindings:
            return robot
        interface = bind(robot.interface, read_bindings(Path(bindings)), bindings)
        return replace(robot, interface=interface)
    if name not in pretrained_names() and not Path(name).exists():
        raise unknown("bundle or robot", name, [*pretrained_names(), *robot_names()])
    return load_bound(name, bindings)


def nominal(target: Target, robot: str | None) -> Robot:
    """Returns the nominal robot: the one of that name or folder; None: the target's.

    Raises:
        UserError: there is none, or it is invalid.
    """
    if robot is None and isinstance(target, Robot):
        return target
    return load_robot(robot or target.interface.robot)


def identity_of(robot: Robot) -> dict[str, str]:
    """Returns the identity of a robot, independent of its path: SHA-256 of the simulated files."""
    return {
        "name": robot.name,
        "folder": robot.model_path.absolute().parent.name,
        "model": hashlib.sha256(robot.model_path.read_bytes()).hexdigest(),
        "interface": robot.interface.digest,
    }


def recorded_task(target: Target, recordings: Sequence[Signals]) -> tuple[TaskFamily, int]:
    """Returns the family of a recording and the number of its task; none for a robot alone."""
    if isinstance(target, Robot):
        return NoTask(), 0
    masters = target.manifest.masters
    named = [d.master for each in recordings for d in each.sessions if d.master in masters]
    if not masters:  # imported skills alone; the scenery is that of the first task
        own = TaskId(target.manifest.family.name)
        return resolve_task(target, select_tasks(target, own)[0])
    return resolve_task(target, masters[named[0] if named else next(iter(masters))].task_id)
